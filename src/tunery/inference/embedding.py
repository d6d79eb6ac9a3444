"""The embedded engine's vectors, over HTTP."""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from tunery.domain.errors import InvalidRequest, Unavailable
from tunery.domain.models import EmbeddingModel
from tunery.inference.connection import LOST, EngineConnection

_PIECE_TOKENS = 4096  # about half a second on two cores: what is computed for a client that left
_PIECE_TEXTS = 256


class EmbeddedEmbedder:
    """An Embedder whose process, the engine of some base, runs on this machine."""

    def __init__(self, address_file: Path, start_s: float = 0.0) -> None:
        """A request waits up to `start_s` seconds for the process to be started."""
        self._connection = EngineConnection(address_file, start_s)

    async def embed(
        self, token_ids: Sequence[Sequence[int]], model: EmbeddingModel
    ) -> "list[array[float]]":
        """Return a vector for each text, asking for a piece of them at a time."""
        found: list[array[float]] = []
        for piece in _pieces(token_ids):
            found += await self._ask(piece, model)
        return found

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def _ask(
        self, token_ids: Sequence[Sequence[int]], model: EmbeddingModel
    ) -> "list[array[float]]":
        body = {"token_ids": [list(ids) for ids in token_ids], "digest": model.digest}
        response = await self._connection.send(
            "POST",
            "/embed",
            content=orjson.dumps(body),
            headers={"content-type": "application/json"},
        )
        try:
            if response.status == 404:
                raise Unavailable(
                    f"The engine cannot load the embedding model {model.name!r}; `tunery doctor`"
                    " and the engine's log say why.",
                    code="model_files_missing",
                )
            await self._connection.checked(response)
            data = await response.read()
        except LOST as error:
            raise Unavailable(
                "The engine stopped before the vectors were complete; try again.",
                code="engine_error",
            ) from error
        finally:
            response.release()
        numbers = array("f")
        size = model.dimensions
        if len(data) != len(token_ids) * size * numbers.itemsize:
            raise Unavailable(
                f"The engine answered with {len(data)} bytes for {len(token_ids)} vectors of"
                f" {size}; add the model {model.name!r} again.",
                code="engine_error",
            )
        numbers.frombytes(data)  # the engine is on this machine: the byte order is the same
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]


class NoEmbedder:
    """An Embedder where there is none; `why` is the setting that has left it out."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def embed(
        self, token_ids: Sequence[Sequence[int]], model: EmbeddingModel
    ) -> "list[array[float]]":
        """Raise InvalidRequest: no embedding model is computed here."""
        raise InvalidRequest(
            f"Embeddings are not served here: {self._why} has no engine for the embedding model"
            f" {model.name!r}. Ask a tunery with the embedded engine.",
            param="model",
            code="unsupported_parameter",
        )


def _pieces(token_ids: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Yield the texts in their order, a bounded number of tokens at a time."""
    piece: list[Sequence[int]] = []
    tokens = 0
    for ids in token_ids:
        if piece and (tokens + len(ids) > _PIECE_TOKENS or len(piece) == _PIECE_TEXTS):
            yield piece
            piece, tokens = [], 0
        piece.append(ids)
        tokens += len(ids)
    if piece:
        yield piece
