"""The items of a conversation as /v1/responses takes them: messages, calls, and their results."""

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Discriminator, Field, StrictBool, StrictFloat, StrictInt, Tag

from tunery.protocol.base import Request
from tunery.protocol.tools import ToolName

ItemStatus = Literal["in_progress", "completed", "incomplete"]
CallId = Annotated[str, Field(min_length=1, max_length=64)]
MessageId = Annotated[str, Field(max_length=64, pattern="^msg[A-Za-z0-9_-]+$")]


class PromptCacheBreakpoint(Request):
    """Where a cached prompt is to end."""

    mode: Literal["explicit"]
    ttl: Literal["30m", "12h"] | None = None


class InputText(Request):
    """A piece of text that is asked with."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: PromptCacheBreakpoint | None = None


class InputImage(Request):
    """An image by its address or its file."""

    type: Literal["input_image"]
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["low", "high", "auto", "original"] | None = None
    prompt_cache_breakpoint: PromptCacheBreakpoint | None = None


class InputFile(Request):
    """A file by its id, its address, or whole."""

    type: Literal["input_file"]
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    detail: Literal["low", "high", "auto"] | None = None
    prompt_cache_breakpoint: PromptCacheBreakpoint | None = None


class KnownToken(Request):
    """A token that might have stood here, and its log-probability."""

    token: str
    bytes: list[Annotated[StrictInt, Field(ge=0, le=255)]]
    logprob: Annotated[StrictFloat | StrictInt, Field(allow_inf_nan=False)]


class KnownLikelihood(KnownToken):
    """A token of an earlier answer, and the likeliest ones in its place."""

    top_logprobs: list[KnownToken]


class OutputText(Request):
    """A piece of an earlier answer, as it came."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[KnownLikelihood] | None = None


class Refusal(Request):
    """A piece of an earlier answer that refused."""

    type: Literal["refusal"]
    refusal: str


def _part_kind(value: Any) -> str:
    """Return the tag of a part: in brackets, which no field's name has."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"[{kind}]"


def _one_of(*kinds: str) -> Discriminator:
    return Discriminator(
        _part_kind,
        custom_error_type="unknown_part",
        custom_error_message="Input should be a part of type " + " or ".join(map(repr, kinds)),
    )


InputPart = Annotated[
    Annotated[InputText, Tag("[input_text]")]
    | Annotated[InputImage, Tag("[input_image]")]
    | Annotated[InputFile, Tag("[input_file]")],
    _one_of("input_text", "input_image", "input_file"),
]
MessagePart = Annotated[
    Annotated[InputText, Tag("[input_text]")]
    | Annotated[InputImage, Tag("[input_image]")]
    | Annotated[InputFile, Tag("[input_file]")]
    | Annotated[OutputText, Tag("[output_text]")]
    | Annotated[Refusal, Tag("[refusal]")],
    _one_of("input_text", "input_image", "input_file", "output_text", "refusal"),
]


class Message(Request):
    """A message. An answer of ours that is sent back as it came is one too."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[MessagePart]
    type: Literal["message"] | None = None
    id: MessageId | None = None
    status: ItemStatus | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class CallerOfTool(Request):
    """What called a tool: the model, or a program that it wrote."""

    type: Literal["direct", "program"]
    caller_id: str | None = None


class FunctionCallItem(Request):
    """A call of a function."""

    type: Literal["function_call"]
    call_id: CallId
    name: ToolName
    arguments: str
    id: str | None = None
    status: ItemStatus | None = None
    namespace: str | None = None
    caller: CallerOfTool | None = None
    is_async: StrictBool | None = Field(None, alias="async")


class FunctionCallOutput(Request):
    """What a function gave."""

    type: Literal["function_call_output"]
    output: str | list[InputPart]
    call_id: CallId | None = None
    id: str | None = None
    status: ItemStatus | None = None
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    namespace: ToolName | None = None
    caller: CallerOfTool | None = None


class OtherItem(Request):
    """An item of a kind that is known by its name only: nothing here can read it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal[
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",
        "custom_tool_call",
        "custom_tool_call_output",
        "file_search_call",
        "image_generation_call",
        "item_reference",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "reasoning",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    ]


_OTHERS = get_args(OtherItem.model_fields["type"].annotation)


def _kind(value: Any) -> str | None:
    """Return which item a value is meant to be: a message, unless it says otherwise."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", "")
    if kind in (None, "message"):
        return "Message"
    if kind in ("function_call", "function_call_output"):
        return "FunctionCallItem" if kind == "function_call" else "FunctionCallOutput"
    return "OtherItem" if kind in _OTHERS else None


InputItem = Annotated[
    Annotated[Message, Tag("Message")]
    | Annotated[FunctionCallItem, Tag("FunctionCallItem")]
    | Annotated[FunctionCallOutput, Tag("FunctionCallOutput")]
    | Annotated[OtherItem, Tag("OtherItem")],
    Discriminator(
        _kind,
        custom_error_type="unknown_item",
        custom_error_message="Input should be an item of a known type",
    ),
]
Input = str | list[InputItem]
