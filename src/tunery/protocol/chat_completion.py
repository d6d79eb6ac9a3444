"""Chat completions on the wire: whole, in chunks, and stored."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tunery.protocol.base import Response
from tunery.protocol.usage import CompletionUsage


class Called(Response):
    """A function's name, and the arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Response):
    """A call of a function tool."""

    id: str
    type: Literal["function"] = "function"
    function: Called


class AssistantMessage(Response):
    """The answer: text, calls, or both."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    annotations: list[Any] = Field(default_factory=list)
    tool_calls: list[ToolCall] | None = None
    function_call: Called | None = None

    @model_serializer(mode="wrap")
    def _without_no_calls(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields; those of calls are there only where there are any."""
        fields: dict[str, Any] = whole(self)
        calls = ("tool_calls", "function_call")
        return {k: v for k, v in fields.items() if v is not None or k not in calls}


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


class _Sparse(Response):
    """What has only the fields that say something."""

    @model_serializer(mode="wrap")
    def _without_nulls(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = whole(self)
        return {k: v for k, v in fields.items() if v is not None}


class CalledDelta(_Sparse):
    """A function's name, or more of the arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(_Sparse):
    """A piece of a call: the first one of each has its id and its name."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledDelta


class ChoiceDelta(_Sparse):
    """A piece of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: CalledDelta | None = None


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
