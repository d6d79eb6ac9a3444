"""What the routes work with, made once by the wiring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from tunery.datasets.rendering import ChatRenderer
from tunery.domain.models import BaseModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.engine import Engine
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database


@dataclass(frozen=True, slots=True)
class Context:
    """The parts behind the edge."""

    database: Database
    blobs: BlobStore
    directory: ModelDirectory
    renderers: Callable[[BaseModel], ChatRenderer]
    engine: Engine
    pepper: bytes
    results_as_base64: bool
    max_file_bytes: int
    engine_context_tokens: int
    is_current: Callable[[], bool]


def context_of(request: Request) -> Context:
    """Return the application's parts."""
    return cast(Context, request.app.state.context)
