"""Tools of a response: flat, where chat completions nest them."""

from collections.abc import Sequence
from typing import Any

from tunery.datasets.tools import Calling, Choice
from tunery.protocol.response_request import CountInputTokensRequest, CreateResponseRequest
from tunery.protocol.response_tools import (
    FlatAllowedTools,
    FlatFunctionTool,
    FlatNamedChoice,
    FlatTool,
    FlatToolChoice,
)
from tunery.wire.refusals import unsupported
from tunery.wire.tools import check_allowed, check_functions, check_named, need_tools

_REFUSED = ("output_schema", "defer_loading", "allowed_callers", "is_async")


def from_flat_calling(request: CreateResponseRequest | CountInputTokensRequest) -> Calling | None:
    """Return what the model may call; raise InvalidRequest that names what cannot be honoured."""
    defined: list[tuple[str, FlatFunctionTool]] = []
    for number, tool in enumerate(request.tools or ()):
        if not isinstance(tool, FlatFunctionTool):
            raise unsupported(f"tools.{number}.type", "Use a tool of type 'function'.")
        for name in _REFUSED:
            if getattr(tool, name):
                spelled = FlatFunctionTool.model_fields[name].alias or name
                raise unsupported(f"tools.{number}.{spelled}")
        defined.append((f"tools.{number}", tool))
    functions = check_functions(defined)
    if not functions:
        need_tools("tool_choice", None if request.tool_choice == "auto" else request.tool_choice)
        return None
    choice, allowed = _choice(request.tool_choice, [one.name for one in functions])
    named = isinstance(request.tool_choice, FlatNamedChoice)  # is called once, as OpenAI does
    several = request.parallel_tool_calls is not False and not named
    return Calling(functions, tuple(allowed), choice, several)


def _choice(asked: FlatToolChoice | None, names: Sequence[str]) -> tuple[Choice, Sequence[str]]:
    if asked is None or isinstance(asked, str):
        return asked or "auto", names
    if isinstance(asked, FlatAllowedTools):
        names_of = [(one, one.get("name")) for one in asked.tools]
        chosen = [n if one == {"type": "function", "name": n} else None for one, n in names_of]
        return check_allowed("tool_choice", asked.mode, chosen, names)
    if not isinstance(asked, FlatNamedChoice) or asked.type != "function":
        raise unsupported("tool_choice.type", "Use 'function'.")
    check_named("tool_choice.name", asked.name, names)
    return "required", [asked.name]


def to_wire_tool(tool: FlatTool) -> dict[str, Any]:
    """Return a tool as the response tells of it."""
    assert isinstance(tool, FlatFunctionTool)  # noqa: S101 - others were refused
    return {
        "type": tool.type,
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict is not False,
    }
