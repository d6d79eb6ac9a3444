"""What the routes work with, made once by the wiring."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from tunery.api.known_keys import KnownKeys
from tunery.datasets.preparing.check_process import FileChecker
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.delivery import Sender
from tunery.endpoints.parts import Parts
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database


@dataclass(frozen=True, slots=True)
class Context:
    """The parts behind the edge."""

    database: Database
    blobs: BlobStore
    parts: Parts
    sender: Sender
    checker: FileChecker
    keys: KnownKeys
    results_as_base64: bool
    max_file_bytes: int
    takes_integrations: bool
    is_current: Callable[[], bool]

    @property
    def directory(self) -> ModelDirectory:
        """Return the models by name."""
        return self.parts.directory


def context_of(request: Request) -> Context:
    """Return the application's parts."""
    return cast(Context, request.app.state.context)
