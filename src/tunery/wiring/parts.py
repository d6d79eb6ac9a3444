"""What answers, in every process that answers: the API, and the worker for batches."""

from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.embedding import Embedder
from tunery.domain.ports.engine import Engine
from tunery.endpoints.ledger import Ledger
from tunery.endpoints.parts import Parts
from tunery.inference.embedding import NoEmbedder
from tunery.inference.engines import EmbeddedEngines
from tunery.services.known_models import KnownModels
from tunery.settings import Settings
from tunery.storage.database import Database
from tunery.wiring.storage import (
    embedding_tokenizer_of,
    engine_places,
    open_directory,
    renderer_of,
)
from tunery.wiring.vllm import build_vllm


def _embedded(settings: Settings, blobs: BlobStore, start_s: float) -> tuple[Engine, Embedder]:
    directory = open_directory(settings)
    engines = EmbeddedEngines(
        engine_places(settings), blobs, lambda: directory.base().digest, start_s
    )
    return engines, engines


def _vllm(settings: Settings, blobs: BlobStore, start_s: float) -> tuple[Engine, Embedder]:
    del start_s  # nothing is started on demand: the one server is kept running, or the operator's
    return build_vllm(settings, blobs), NoEmbedder("TUNERY_ENGINE__KIND=vllm")


_KINDS = {"embedded": _embedded, "vllm": _vllm}


def build_parts(
    settings: Settings, database: Database, blobs: BlobStore, *, supervised: bool
) -> Parts:
    """Return the parts behind an answer; where `supervised`, engines are started on demand."""
    start_s = settings.engine.start_s if supervised else 0.0
    engine, embedder = _KINDS[settings.engine.kind](settings, blobs, start_s)
    return Parts(
        database=database,
        ledger=Ledger(database),
        models=KnownModels(database, open_directory(settings)),
        renderers=renderer_of,
        engine=engine,
        engine_context_tokens=settings.engine.context_tokens,
        embedder=embedder,
        embedding_tokenizers=embedding_tokenizer_of,
        responses_kept_s=settings.responses_kept_days * 86_400,
    )
