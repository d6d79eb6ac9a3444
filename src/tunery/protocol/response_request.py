"""A response's request on the wire: every field of OpenAI's, with its shape.

Which of them are refused by name although they are well-formed, wire/responses.py says.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt

from tunery.protocol.base import Request
from tunery.protocol.chat import ModerationOptions
from tunery.protocol.metadata import Metadata
from tunery.protocol.response_items import Input
from tunery.protocol.response_tools import FlatTool, FlatToolChoice, TextOptions
from tunery.protocol.sampling import EndUser, Share, Temperature

LOGPROBS = "message.output_text.logprobs"

Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


class Reasoning(Request):
    """How a reasoning model is to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class ConversationId(Request):
    """A conversation by its id."""

    id: str


class PromptTemplate(Request):
    """A prompt by its id, and what is put into it."""

    id: str
    version: str | None = None
    variables: dict[str, Any] | None = None


class ResponseStreamOptions(Request):
    """What a stream carries besides the answer."""

    include_obfuscation: StrictBool | None = None


class ResponseCacheOptions(Request):
    """How prompts are to be cached."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None
    prewarm: StrictBool | None = None
    comparison_response_id: str | None = None


class ContextManagement(Request):
    """How a long context is to be made shorter."""

    type: str
    compact_threshold: StrictInt | None = None


class AccessPrograms(Request):
    """The programs that the caller takes part in."""

    cyber: Literal["standard", "daybreak_blue", "daybreak_red"] | None = None


class BackgroundOptions(Request):
    """When a background response is to be done."""

    completion_window: Literal["soonest", "2h", "8h"] | None = None
    continuation_id: str | None = None


class ImageOptions(Request):
    """How images are held in the context."""

    context_compression: Literal["auto", "enabled", "disabled"] | None = None


class _Asked(Request):
    """What a response and a count of its tokens are asked with alike."""

    input: Input | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    text: TextOptions | None = None
    tools: list[FlatTool] | None = None
    tool_choice: FlatToolChoice | None = None
    parallel_tool_calls: StrictBool | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    conversation: str | ConversationId | None = None


class CreateResponseRequest(_Asked):
    """What is to be answered."""

    model: str = Field(min_length=1)
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_output_tokens: Annotated[StrictInt, Field(ge=16, le=2**31 - 1)] | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
    include: list[Includable] | None = None
    store: StrictBool | None = None
    stream: StrictBool | None = None
    stream_options: ResponseStreamOptions | None = None
    metadata: Metadata | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None
    service_tier: (
        Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None
    ) = None
    max_tool_calls: Annotated[StrictInt, Field(ge=1)] | None = None
    background: StrictBool | None = None
    background_options: BackgroundOptions | None = None
    prompt: PromptTemplate | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: ResponseCacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    moderation: ModerationOptions | None = None
    context_management: Annotated[list[ContextManagement], Field(min_length=1)] | None = None
    access_programs: AccessPrograms | None = None
    image: ImageOptions | None = None


class CountInputTokensRequest(_Asked):
    """What is to be counted."""

    model: Annotated[str, Field(min_length=1)] | None = None
    personality: str | None = None
