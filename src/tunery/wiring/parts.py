"""What answers, in every process that answers: the API, and the worker for batches."""

from tunery.domain.ports.blobs import BlobStore
from tunery.endpoints.parts import Parts
from tunery.inference.embedded import EmbeddedEngine
from tunery.inference.embedding import EmbeddedEmbedder
from tunery.settings import Settings
from tunery.storage.database import Database
from tunery.wiring.storage import (
    embedding_tokenizer_of,
    engine_file,
    open_directory,
    renderer_of,
)


def build_parts(settings: Settings, database: Database, blobs: BlobStore) -> Parts:
    """Return the parts behind an answer."""
    return Parts(
        database=database,
        directory=open_directory(settings),
        renderers=renderer_of,
        engine=EmbeddedEngine(engine_file(settings), blobs),
        engine_context_tokens=settings.engine.context_tokens,
        embedder=EmbeddedEmbedder(engine_file(settings)),
        embedding_tokenizers=embedding_tokenizer_of,
        responses_kept_s=settings.responses_kept_days * 86_400,
    )
