"""POST /embed of the engine's server: token ids in, float32 vectors out.

Torch has one thread here, the scheduler's: a second one would make a second pool of compute
threads and slow everything down threefold. So texts are computed in small batches, one between two
steps for all requests together: a streaming answer waits for no more than one batch a token.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from tunery.domain.errors import Overloaded
from tunery.domain.models import EmbeddingModel
from tunery.engine.between_steps import between_steps
from tunery.engine.scheduler import NotResident, Scheduler
from tunery.model.embedding import EmbeddingNetwork, load_embedding
from tunery.telemetry import logger

# Padding included. A token takes the same time in a batch of 256 as in one of 2048, so a larger one
# would only hold up the answers that stream.
BATCH_TOKENS = 256
MAX_TEXTS = 2048

TokenId = Annotated[int, Field(ge=0)]


class EmbedBody(BaseModel):
    """Texts to embed, as the engine's client sends them: ids with the special tokens in them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token_ids: list[Annotated[list[TokenId], Field(min_length=1)]] = Field(
        min_length=1, max_length=MAX_TEXTS
    )
    digest: str


class EmbeddingServer:
    """Loads an embedding model when it is first asked for, and computes its vectors.

    `find` returns the catalogue's embedding model with a digest. `queue` bounds the requests that
    are in the works at a time.
    """

    def __init__(
        self, scheduler: Scheduler, find: Callable[[str], EmbeddingModel | None], queue: int
    ) -> None:
        self._scheduler = scheduler
        self._find = find
        self._queue = queue
        self._asking = 0
        self._loaded: dict[str, EmbeddingNetwork] = {}

    def mount(self, app: FastAPI) -> None:
        """Add the route; the application's own check of the secret holds for it too."""
        app.post("/embed")(self.embed)

    async def embed(self, body: EmbedBody) -> Response:
        """Return the vectors one after another, float32 in this machine's byte order."""
        if self._asking >= self._queue:
            raise Overloaded("The engine's queue is full; try again.")
        self._asking += 1
        try:
            network = await self._network(body.digest)
            _check(network, body.token_ids)
            vectors = await self._compute(network, body.token_ids)
        finally:
            self._asking -= 1
        return Response(b"".join(vectors), media_type="application/octet-stream")

    async def _compute(
        self, network: EmbeddingNetwork, texts: Sequence[Sequence[int]]
    ) -> list[bytes]:
        found = [b""] * len(texts)
        for places in batches([len(ids) for ids in texts]):
            batch = [texts[place] for place in places]
            rows = await between_steps(self._scheduler.call_in_turn, partial(_rows, network, batch))
            for place, row in zip(places, rows, strict=True):
                found[place] = row
        return found

    async def _network(self, digest: str) -> EmbeddingNetwork:
        network = self._loaded.get(digest)
        if network is None:
            model = await asyncio.to_thread(self._find, digest)
            if model is None:
                raise NotResident(f"No embedding model {digest[:12]} is on this machine.")
            network = await between_steps(self._scheduler.call_in_turn, partial(self._load, model))
        return network

    def _load(self, model: EmbeddingModel) -> EmbeddingNetwork:
        """Load the model on the scheduler's thread, unless another request had it loaded."""
        if model.digest not in self._loaded:
            try:
                network = load_embedding(Path(model.path))
            except Exception as error:  # whatever is wrong with its files, this thread lives on
                logger().error("embedding model not loaded", model=model.name, error=str(error))
                raise NotResident(
                    f"The embedding model {model.name!r} cannot be loaded; see the engine's log."
                ) from None
            # The one before is let go of: it was replaced, or is rarely asked for.
            self._loaded = {model.digest: network}
        return self._loaded[model.digest]


def batches(lengths: Sequence[int], most: int = BATCH_TOKENS) -> list[list[int]]:
    """Return the places of texts that are computed together: like lengths, at most `most` tokens.

    A text that is longer than `most` stands alone.
    """
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if found and (len(found[-1]) + 1) * lengths[place] <= most:
            found[-1].append(place)
        else:
            found.append([place])
    return found


def _check(network: EmbeddingNetwork, texts: Sequence[Sequence[int]]) -> None:
    longest, highest = max(map(len, texts)), max(map(max, texts))
    if longest > network.positions or highest >= network.vocabulary:
        raise HTTPException(
            400,
            f"Got a text of {longest} tokens, highest id {highest}; this model takes"
            f" {network.positions} tokens with ids below {network.vocabulary}.",
        )


def _rows(network: EmbeddingNetwork, batch: Sequence[Sequence[int]]) -> list[bytes]:
    return [row.tobytes() for row in network.vectors(batch).numpy()]
