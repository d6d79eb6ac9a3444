"""What answers, in every process that answers: the API, and the worker for batches."""

from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.embedding import Embedder
from tunery.domain.ports.engine import Engine
from tunery.endpoints.ledger import Ledger
from tunery.endpoints.parts import Parts
from tunery.inference.embedded import EmbeddedEngine
from tunery.inference.embedding import EmbeddedEmbedder, NoEmbedder
from tunery.settings import Settings
from tunery.storage.database import Database
from tunery.wiring.storage import (
    embedding_tokenizer_of,
    engine_file,
    open_directory,
    renderer_of,
)
from tunery.wiring.vllm import build_vllm


def _embedded(settings: Settings, blobs: BlobStore) -> tuple[Engine, Embedder]:
    return EmbeddedEngine(engine_file(settings), blobs), EmbeddedEmbedder(engine_file(settings))


def _vllm(settings: Settings, blobs: BlobStore) -> tuple[Engine, Embedder]:
    return build_vllm(settings, blobs), NoEmbedder("TUNERY_ENGINE__KIND=vllm")


_KINDS = {"embedded": _embedded, "vllm": _vllm}


def build_parts(settings: Settings, database: Database, blobs: BlobStore) -> Parts:
    """Return the parts behind an answer."""
    engine, embedder = _KINDS[settings.engine.kind](settings, blobs)
    return Parts(
        database=database,
        ledger=Ledger(database),
        directory=open_directory(settings),
        renderers=renderer_of,
        engine=engine,
        engine_context_tokens=settings.engine.context_tokens,
        embedder=embedder,
        embedding_tokenizers=embedding_tokenizer_of,
        responses_kept_s=settings.responses_kept_days * 86_400,
    )
