"""Responses on the wire."""

from typing import Any, Literal

from pydantic import Field, TypeAdapter

from tunery.protocol.base import Response
from tunery.protocol.response_items import ItemStatus

ResponseStatus = Literal["completed", "failed", "in_progress", "incomplete"]


class LikelyToken(Response):
    """A token that might have stood here, and its natural log-probability."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLikelihood(LikelyToken):
    """A token of the answer, and the likeliest ones in its place."""

    top_logprobs: list[LikelyToken]


class OutputTextPart(Response):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default_factory=list)
    logprobs: list[TokenLikelihood] = Field(default_factory=list)


class OutputMessage(Response):
    """An answer."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: list[OutputTextPart]


class OutputFunctionCall(Response):
    """A call: `call_id` is what its output names."""

    id: str
    type: Literal["function_call"] = "function_call"
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class InputTokensDetails(Response):
    """Where the input's tokens came from."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(Response):
    """What the answer's tokens were."""

    reasoning_tokens: int = 0


class ResponseUsage(Response):
    """Tokens billed."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class IncompleteDetails(Response):
    """Why an answer ended before its end."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseError(Response):
    """Why there is no answer."""

    code: str
    message: str


class ResponseObject(Response):
    """A response: the answer, and what it was asked with."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    background: bool = False
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None = None
    model: str
    output: list[OutputMessage | OutputFunctionCall]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None = None
    reasoning: dict[str, Any] = Field(default_factory=lambda: {"effort": None, "summary": None})
    safety_identifier: str | None
    service_tier: str = "default"
    store: bool
    system_fingerprint: str | None = None
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]


class ResponseDeleted(Response):
    """A response that is gone."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputTokenCount(Response):
    """How many tokens an input has."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class InputTextPart(Response):
    """A piece of text that was asked with."""

    type: Literal["input_text"] = "input_text"
    text: str


class ListedMessage(Response):
    """A message that was asked with, or an earlier answer."""

    id: str
    type: Literal["message"] = "message"
    status: ItemStatus
    role: Literal["user", "assistant", "system", "developer"]
    content: list[InputTextPart | OutputTextPart]


class ListedOutput(Response):
    """What a function gave."""

    id: str
    type: Literal["function_call_output"] = "function_call_output"
    status: ItemStatus
    call_id: str
    output: str | list[InputTextPart]


ListedItem = ListedMessage | OutputFunctionCall | ListedOutput
LISTED: TypeAdapter[ListedItem] = TypeAdapter(ListedItem)
