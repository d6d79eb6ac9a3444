"""Chat completions on the wire: whole, in chunks, and stored."""

from typing import Any, Literal

from pydantic import Field

from tunery.protocol.base import Response
from tunery.protocol.usage import CompletionUsage


class AssistantMessage(Response):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None
    annotations: list[Any] = Field(default_factory=list)


class TopLogprob(Response):
    """A token that might have stood here, and its natural log-probability."""

    token: str
    bytes: list[int] | None
    logprob: float


class ChatCompletionTokenLogprob(Response):
    """A token of the answer, its natural log-probability, and the likeliest ones in its place."""

    token: str
    bytes: list[int] | None
    logprob: float
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Response):
    """How likely each token of a choice was."""

    content: list[ChatCompletionTokenLogprob]
    refusal: None = None


class Choice(Response):
    """One answer."""

    index: int = 0
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str


class ChatCompletion(Response):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    metadata: dict[str, str] | None = None
    service_tier: str = "default"
    system_fingerprint: str


class ChoiceDelta(Response):
    """A piece of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None


class ChunkChoice(Response):
    """One answer's piece."""

    index: int = 0
    delta: ChoiceDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(Response):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    service_tier: str = "default"
    system_fingerprint: str
    usage: CompletionUsage | None = None
