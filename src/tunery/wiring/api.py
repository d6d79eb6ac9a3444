"""The API process: no torch comes in here."""

from starlette.types import ASGIApp

from tunery.api.app import create_app
from tunery.api.context import Context
from tunery.api.draining import Drain
from tunery.api.known_keys import KnownKeys
from tunery.datasets.preparing.check_process import FileChecker
from tunery.settings import Settings
from tunery.storage.migrate import is_current
from tunery.wiring.outgoing import build_sender
from tunery.wiring.parts import build_parts
from tunery.wiring.storage import (
    load_pepper,
    open_blobs,
    open_database,
)


def build_api(
    settings: Settings, drain: Drain | None = None, *, supervised: bool = False
) -> ASGIApp:
    """Return the API over the parts that the settings name.

    `supervised` says that somebody starts the engines that are wanted.
    """
    database = open_database(settings)
    blobs = open_blobs(settings)
    return create_app(
        Context(
            database=database,
            blobs=blobs,
            parts=build_parts(settings, database, blobs, supervised=supervised),
            sender=build_sender(settings),
            checker=FileChecker(),
            keys=KnownKeys(database, load_pepper(settings)),
            results_as_base64=settings.results_content == "base64",
            max_file_bytes=settings.max_file_bytes,
            takes_integrations=settings.wandb.mode != "disabled",
            is_current=lambda: is_current(database),
        ),
        drain,
    )
