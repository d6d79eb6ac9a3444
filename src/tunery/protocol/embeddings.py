"""Embeddings on the wire."""

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from tunery.protocol.base import Request, Response
from tunery.protocol.completions import TokenIds
from tunery.protocol.sampling import EndUser

MAX_INPUTS = 2048


class CreateEmbeddingRequest(Request):
    """Texts to turn into vectors."""

    model: str = Field(min_length=1)
    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = None
    user: EndUser | None = None


class Embedding(Response):
    """A text's vector: numbers, or their little-endian float32 bytes in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Response):
    """Tokens billed."""

    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(Response):
    """A vector for each input, in order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
