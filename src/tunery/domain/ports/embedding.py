"""What turns texts into vectors: token ids in, one vector a text out."""

from array import array
from collections.abc import Sequence
from typing import Protocol

from tunery.domain.models import EmbeddingModel


class Embedder(Protocol):
    """Embedding models, by the digest of their files."""

    async def embed(
        self, token_ids: Sequence[Sequence[int]], model: EmbeddingModel
    ) -> "list[array[float]]":
        """Return a vector of `model.dimensions` float32 and of length 1 for each text, in order.

        A text is what `datasets.embedding.EmbeddingTokenizer` makes of it: at most
        `model.max_tokens` ids, counted and framed. Raise Unavailable where the model or the engine
        is not there, Overloaded where no more texts are taken now.
        """
