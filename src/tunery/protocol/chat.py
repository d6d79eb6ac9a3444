"""A chat completion's request on the wire."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt

from tunery.protocol.base import Request
from tunery.protocol.messages import ChatMessage, TextPart
from tunery.protocol.metadata import Metadata
from tunery.protocol.sampling import (
    Choices,
    EndUser,
    LogitBias,
    Penalty,
    Seed,
    Share,
    Stop,
    Temperature,
    TokenCount,
)
from tunery.protocol.tools import (
    CustomTool,
    FunctionDefinition,
    FunctionTool,
    ResponseFormat,
    ToolChoice,
    ToolName,
)


class StreamOptions(Request):
    """What a stream carries besides the answer."""

    include_usage: StrictBool = False
    include_obfuscation: StrictBool = False


class AudioOptions(Request):
    """How a spoken answer is to sound."""

    voice: Any
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]


class FunctionName(Request):
    """A function by its name."""

    name: ToolName


class Prediction(Request):
    """What the answer is expected to be."""

    type: Literal["content"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]


class ModerationMode(Request):
    """What is done with a verdict."""

    mode: Literal["score", "block"]


class ModerationPolicy(Request):
    """What is done with verdicts on input and output."""

    input: ModerationMode | None = None
    output: ModerationMode | None = None


class ModerationOptions(Request):
    """Judge the conversation on the way."""

    model: str
    policy: ModerationPolicy | None = None


class PromptCacheOptions(Request):
    """How prompts are to be cached."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m"] | None = None


class ApproximateLocation(Request):
    """Where the end user is, roughly."""

    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None


class UserLocation(Request):
    """Where the end user is."""

    type: Literal["approximate"]
    approximate: ApproximateLocation


class WebSearchOptions(Request):
    """How the web is to be searched."""

    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: UserLocation | None = None


class CreateChatCompletionRequest(Request):
    """A conversation to answer: every field of OpenAI's request, validated.

    Which of them are refused by name although they are well-formed, wire/chat.py says.
    """

    model: str = Field(min_length=1)
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    n: Choices | None = None
    stop: Stop | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    store: StrictBool | None = None
    metadata: Metadata | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Field(min_length=1)] | None = None
    response_format: ResponseFormat | None = None
    tools: (
        Annotated[list[FunctionTool | CustomTool], Field(max_length=128, fail_fast=True)] | None
    ) = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: StrictBool | None = None
    functions: Annotated[list[FunctionDefinition], Field(max_length=128, fail_fast=True)] | None = (
        None
    )
    function_call: Literal["none", "auto"] | FunctionName | None = None
    audio: AudioOptions | None = None
    moderation: ModerationOptions | None = None
    prediction: Prediction | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: WebSearchOptions | None = None
