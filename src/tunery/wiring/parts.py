"""What answers, in every process that answers: the API, and the worker for batches."""

from tunery.domain.ports.blobs import BlobStore
from tunery.endpoints.parts import Parts
from tunery.inference.engines import EmbeddedEngines
from tunery.settings import Settings
from tunery.storage.database import Database
from tunery.wiring.storage import (
    embedding_tokenizer_of,
    engine_places,
    open_directory,
    renderer_of,
)


def build_parts(
    settings: Settings, database: Database, blobs: BlobStore, *, supervised: bool
) -> Parts:
    """Return the parts behind an answer; where `supervised`, engines are started on demand."""
    directory, places = open_directory(settings), engine_places(settings)
    start_s = settings.engine.start_s if supervised else 0.0
    engines = EmbeddedEngines(places, blobs, lambda: directory.base().digest, start_s)
    return Parts(
        database=database,
        directory=directory,
        renderers=renderer_of,
        engine=engines,
        engine_context_tokens=settings.engine.context_tokens,
        embedder=engines,
        embedding_tokenizers=embedding_tokenizer_of,
        responses_kept_s=settings.responses_kept_days * 86_400,
    )
