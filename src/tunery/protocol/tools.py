"""Tools that a model may call, and the form that an answer is to have."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictBool

from tunery.protocol.base import Request

ToolName = Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_-]+$")]
Schema = dict[str, Any]


class FunctionDefinition(Request):
    """A function: what it is called, what it does, and its arguments as a JSON schema."""

    name: ToolName
    description: str | None = None
    parameters: Schema | None = None
    strict: StrictBool | None = None


class FunctionTool(Request):
    """A function as a tool."""

    type: Literal["function"]
    function: FunctionDefinition


class GrammarBody(Request):
    """A grammar's text."""

    definition: str
    syntax: Literal["lark", "regex"]


class GrammarFormat(Request):
    """Input of a custom tool that follows a grammar."""

    type: Literal["grammar"]
    grammar: GrammarBody


class TextFormat(Request):
    """Input of a custom tool that is any text."""

    type: Literal["text"]


class CustomDefinition(Request):
    """A tool that takes text."""

    name: ToolName
    description: str | None = None
    format: TextFormat | GrammarFormat | None = None


class CustomTool(Request):
    """A custom tool."""

    type: Literal["custom"]
    custom: CustomDefinition


class NamedFunction(Request):
    """A function by its name."""

    name: ToolName


class FunctionChoice(Request):
    """The one function to call."""

    type: Literal["function"]
    function: NamedFunction


class CustomChoice(Request):
    """The one custom tool to call."""

    type: Literal["custom"]
    custom: NamedFunction


class AllowedToolsBody(Request):
    """The tools that may be called."""

    mode: Literal["auto", "required"]
    tools: list[Schema]


class AllowedTools(Request):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolsBody


ToolChoice = Literal["none", "auto", "required"] | FunctionChoice | CustomChoice | AllowedTools


class JsonSchemaBody(Request):
    """A schema that the answer has to follow."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: ToolName
    description: str | None = None
    json_schema: Schema | None = Field(None, alias="schema")
    strict: StrictBool | None = None


class TextResponse(Request):
    """Any text."""

    type: Literal["text"]


class JsonObjectResponse(Request):
    """A JSON object."""

    type: Literal["json_object"]


class JsonSchemaResponse(Request):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchemaBody


ResponseFormat = TextResponse | JsonObjectResponse | JsonSchemaResponse
