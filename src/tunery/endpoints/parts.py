"""What the endpoints work with, made once by the wiring."""

from collections.abc import Callable
from dataclasses import dataclass

from tunery.datasets.embedding import EmbeddingTokenizer
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.models import BaseModel, EmbeddingModel
from tunery.domain.ports.embedding import Embedder
from tunery.domain.ports.engine import Engine
from tunery.endpoints.ledger import Ledger
from tunery.services.known_models import KnownModels
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts behind an answer."""

    database: Database
    ledger: Ledger
    models: KnownModels
    renderers: Callable[[BaseModel], ChatRenderer]
    engine: Engine
    engine_context_tokens: int
    embedder: Embedder
    embedding_tokenizers: Callable[[EmbeddingModel], EmbeddingTokenizer]
    responses_kept_s: int = 30 * 86_400

    @property
    def directory(self) -> ModelDirectory:
        """Return the models by name, as they are now."""
        return self.models.directory
