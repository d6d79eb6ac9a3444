"""Legacy completions on the wire."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt

from tunery.protocol.base import Request, Response
from tunery.protocol.chat import StreamOptions
from tunery.protocol.sampling import (
    Choices,
    EndUser,
    LogitBias,
    Penalty,
    Seed,
    Share,
    Stop,
    Temperature,
)
from tunery.protocol.usage import CompletionUsage

TokenId = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
MAX_PROMPTS = 2048


class CreateCompletionRequest(Request):
    """Text to go on from: every field of OpenAI's request, validated.

    Which of them are refused by name although they are well-formed, wire/completions.py says.
    """

    model: str = Field(min_length=1)
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
        | None
    )
    max_tokens: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    n: Choices | None = None
    best_of: Annotated[StrictInt, Field(ge=1, le=20)] | None = None
    echo: StrictBool | None = None
    logprobs: Annotated[StrictInt, Field(ge=0, le=5)] | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    user: EndUser | None = None


class CompletionLogprobs(Response):
    """How likely each token was: natural logarithms; None where nothing stands before a token."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(Response):
    """One answer, or a piece of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class Completion(Response):
    """A whole answer, or a piece of a streamed one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str
    usage: CompletionUsage | None = None
