"""Embeddings."""

import base64
import math
import sys
from array import array
from collections.abc import Sequence

from tunery.protocol.embeddings import (
    CreateEmbeddingRequest,
    CreateEmbeddingResponse,
    Embedding,
    EmbeddingUsage,
)


def from_wire_inputs(request: CreateEmbeddingRequest) -> list[str | list[int]]:
    """Return the texts, or the token ids of texts."""
    given = request.input
    if isinstance(given, str):
        return [given]
    ids = [one for one in given if isinstance(one, int)]
    return [ids] if ids else [one for one in given if not isinstance(one, int)]


def to_wire_embeddings(
    request: CreateEmbeddingRequest, vectors: "Sequence[array[float]]", tokens: int
) -> CreateEmbeddingResponse:
    """Return the vectors as they were asked for: shortened, and as numbers or in base64."""
    shortened = [_shortened(vector, request.dimensions) for vector in vectors]
    as_base64 = request.encoding_format == "base64"
    return CreateEmbeddingResponse(
        data=[
            Embedding(index=index, embedding=_base64(vector) if as_base64 else vector.tolist())
            for index, vector in enumerate(shortened)
        ],
        model=request.model,
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _shortened(vector: "array[float]", dimensions: int | None) -> "array[float]":
    """Return the vector's first numbers, brought back to length 1."""
    if dimensions is None or dimensions == len(vector):
        return vector
    kept = vector[:dimensions]
    length = math.sqrt(sum(number * number for number in kept))
    return array("f", (number / length for number in kept)) if length else kept


def _base64(vector: "array[float]") -> str:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
