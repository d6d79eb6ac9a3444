"""The embedded engines of all bases as one Engine: each request goes to its base's process.

Embedding models have no base: the default base's engine computes them.
"""

from array import array
from collections.abc import AsyncGenerator, Callable, Sequence

from tunery.domain.jobs import Adapter
from tunery.domain.models import EmbeddingModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.engine import Delta, EngineHealth, Generation, TokenLogprob
from tunery.inference.embedded import EmbeddedEngine
from tunery.inference.embedding import EmbeddedEmbedder
from tunery.inference.places import EnginePlaces


class EmbeddedEngines:
    """An Engine and an Embedder whose processes, one a base, run on this machine."""

    def __init__(
        self,
        places: EnginePlaces,
        blobs: BlobStore,
        default_digest: Callable[[], str],
        start_s: float,
    ) -> None:
        """`start_s` is how long a request waits for its base's engine to be started."""
        self._places, self._blobs = places, blobs
        self._default_digest, self._start_s = default_digest, start_s
        self._engines: dict[str, EmbeddedEngine] = {}
        self._embedders: dict[str, EmbeddedEmbedder] = {}

    def version(self, base_digest: str) -> str:
        """Return our own version, and the arithmetic of that base's engine."""
        return self.of(base_digest).version(base_digest)

    def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """Yield the answer of its base's engine."""
        return self.of(generation.base_digest).generate(generation)

    async def score(
        self, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter | None
    ) -> list[list[float]]:
        """Return the served model's log-probabilities."""
        return await self.of(base_digest).score(token_ids, base_digest, adapter)

    async def likelihoods(
        self,
        token_ids: Sequence[int],
        base_digest: str,
        adapter: Adapter | None,
        top: int,
        *,
        tenant: str,
    ) -> list[TokenLogprob]:
        """Return how likely the served model finds each token but the first."""
        engine = self.of(base_digest)
        return await engine.likelihoods(token_ids, base_digest, adapter, top, tenant=tenant)

    async def load(self, adapter: Adapter, base_digest: str) -> None:
        """Send the adapter's files to its base's engine."""
        await self.of(base_digest).load(adapter, base_digest)

    async def unload(self, adapter: Adapter, base_digest: str) -> None:
        """Have its base's engine let go of the adapter."""
        await self.of(base_digest).unload(adapter, base_digest)

    async def embed(
        self, token_ids: Sequence[Sequence[int]], model: EmbeddingModel
    ) -> "list[array[float]]":
        """Return a vector for each text, computed by the default base's engine."""
        digest = self._default_digest()
        if digest not in self._embedders:
            address = self._places.address(digest)
            self._embedders[digest] = EmbeddedEmbedder(address, self._start_s)
        return await self._embedders[digest].embed(token_ids, model)

    async def health(self) -> EngineHealth:
        """Return the state of the default base's engine, or of another that it made room for."""
        digest, announced = self._default_digest(), self._places.announced()
        if digest not in announced and announced:
            digest = announced[0]
        return await self.of(digest).health()

    async def close(self) -> None:
        """Close every connection."""
        for engine in self._engines.values():
            await engine.close()
        for embedder in self._embedders.values():
            await embedder.close()

    def of(self, base_digest: str) -> EmbeddedEngine:
        """Return the client of one base's engine, whether that runs or not."""
        if base_digest not in self._engines:
            address = self._places.address(base_digest)
            self._engines[base_digest] = EmbeddedEngine(address, self._blobs, self._start_s)
        return self._engines[base_digest]
