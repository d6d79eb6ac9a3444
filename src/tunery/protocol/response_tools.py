"""Tools and formats as /v1/responses takes them: flat, where chat completions nest them."""

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Discriminator, Field, StrictBool, Tag

from tunery.protocol.base import Request
from tunery.protocol.tools import JsonObjectResponse, Schema, TextResponse, ToolName


class FlatFunctionTool(Request):
    """A function as a tool."""

    type: Literal["function"]
    name: ToolName
    parameters: Schema | None = None
    strict: StrictBool | None = None
    description: str | None = None
    output_schema: Schema | None = None
    defer_loading: StrictBool | None = None
    allowed_callers: list[Literal["direct", "programmatic"]] | None = None
    is_async: StrictBool | None = Field(None, alias="async")


class OtherTool(Request):
    """A tool of a kind that is known by its name only."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: Literal[
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "custom",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    ]


_OTHERS = get_args(OtherTool.model_fields["type"].annotation)


def _kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if kind == "function":
        return "FlatFunctionTool"
    return "OtherTool" if kind in _OTHERS else None


FlatTool = Annotated[
    Annotated[FlatFunctionTool, Tag("FlatFunctionTool")] | Annotated[OtherTool, Tag("OtherTool")],
    Discriminator(
        _kind,
        custom_error_type="unknown_tool",
        custom_error_message="Input should be a tool of a known type",
    ),
]


class FlatAllowedTools(Request):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[Schema]


class FlatNamedChoice(Request):
    """The one tool to call."""

    type: Literal["function", "custom"]
    name: ToolName


class McpChoice(Request):
    """The server to call, and which tool of it."""

    type: Literal["mcp"]
    server_label: str
    name: str | None = None


class HostedChoice(Request):
    """The hosted tool to call."""

    type: Literal[
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "programmatic_tool_calling",
        "shell",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    ]


FlatToolChoice = (
    Literal["none", "auto", "required"]
    | FlatNamedChoice
    | FlatAllowedTools
    | McpChoice
    | HostedChoice
)


class FlatJsonSchema(Request):
    """JSON that follows a schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    type: Literal["json_schema"]
    name: ToolName
    json_schema: Schema = Field(alias="schema")
    description: str | None = None
    strict: StrictBool | None = None


class TextOptions(Request):
    """The form that the answer is to have."""

    format: TextResponse | FlatJsonSchema | JsonObjectResponse | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
