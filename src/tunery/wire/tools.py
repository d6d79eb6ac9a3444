"""Tools of a chat completion: what may be asked for, and what a model is told of it."""

from collections.abc import Sequence
from typing import Any

from tunery.datasets.tools import Calling, Choice, Function
from tunery.domain.errors import InvalidRequest
from tunery.protocol.chat import CreateChatCompletionRequest, FunctionName
from tunery.protocol.response_tools import FlatFunctionTool
from tunery.protocol.tools import (
    AllowedTools,
    CustomChoice,
    CustomTool,
    FunctionChoice,
    FunctionDefinition,
    FunctionTool,
    Schema,
)
from tunery.wire.refusals import unsupported

_MAX_DEPTH = 100  # of a schema: it is written out again, and JSON's writers have their bounds


def check_tools(request: CreateChatCompletionRequest) -> None:
    """Raise InvalidRequest that names the first field of tools which cannot be honoured."""
    for number, tool in enumerate(request.tools or ()):
        if isinstance(tool, CustomTool):
            raise unsupported(f"tools.{number}.type", "Use a tool of type 'function'.")
    if request.tools and request.functions:
        raise _invalid("functions", "it is the deprecated form of 'tools'; send one of them")
    if not request.tools:
        need_tools("tool_choice", request.tool_choice)
        need_tools("parallel_tool_calls", request.parallel_tool_calls)
    if not request.functions:
        need_tools("function_call", request.function_call, "functions")
    from_wire_calling(request)


def need_tools(param: str, value: Any, needed: str = "tools") -> None:
    """Refuse a field that says how to call tools where there are none."""
    if value not in (None, "none"):
        raise _invalid(param, f"it is only allowed when '{needed}' are specified")


def from_wire_calling(request: CreateChatCompletionRequest) -> Calling | None:
    """Return what the model may call; None where it is told of nothing."""
    if request.functions:
        functions = check_functions(
            [(f"functions.{n}", one) for n, one in enumerate(request.functions)]
        )
        choice, allowed = _deprecated_choice(request, [one.name for one in functions])
        return Calling(functions, tuple(allowed), choice, several=False)
    if not request.tools:
        return None
    functions = check_functions(
        [
            (f"tools.{n}.function", one.function)
            for n, one in enumerate(request.tools)
            if isinstance(one, FunctionTool)
        ]
    )
    choice, allowed = _choice(request, [one.name for one in functions])
    named = isinstance(request.tool_choice, FunctionChoice)  # is called once, as OpenAI does
    several = request.parallel_tool_calls is not False and not named
    return Calling(functions, tuple(allowed), choice, several)


def check_functions(
    defined: Sequence[tuple[str, FunctionDefinition | FlatFunctionTool]],
) -> tuple[Function, ...]:
    """Return functions, each defined at a place; refuse one that cannot be called."""
    functions: list[Function] = []
    for place, one in defined:
        if any(one.name == earlier.name for earlier in functions):
            raise _invalid(f"{place}.name", f"there are two functions {one.name!r}")
        kind = (one.parameters or {}).get("type", "object")
        if kind != "object":
            raise _invalid(
                f"{place}.parameters", f"a schema of type 'object' is needed, got {str(kind)[:40]}"
            )
        if _is_deeper(one.parameters, _MAX_DEPTH):
            raise _invalid(f"{place}.parameters", f"it is nested in more than {_MAX_DEPTH} levels")
        functions.append(
            Function(
                one.name,
                one.description,
                one.parameters,
                strict=bool(one.strict) if isinstance(one, FunctionDefinition) else one.strict,
                param=f"{place}.parameters",
            )
        )
    return tuple(functions)


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


def check_named(param: str, name: str, names: Sequence[str]) -> None:
    """Refuse a choice of a function that there is none of."""
    if name not in names:
        raise _invalid(param, f"there is no tool {name!r} among 'tools'")


def check_allowed(
    param: str, mode: Choice, chosen: Sequence[Any], names: Sequence[str]
) -> tuple[Choice, list[str]]:
    """Return the choice among allowed tools, each a function's name, or None for another kind."""
    for number, name in enumerate(chosen):
        if not isinstance(name, str):
            raise _invalid(f"{param}.tools.{number}", "it needs to name a function")
        check_named(f"{param}.tools.{number}", name, names)
    if not chosen:
        raise _invalid(f"{param}.tools", "it needs to name at least one tool")
    return mode, [name for name in names if name in chosen]


def _choice(
    request: CreateChatCompletionRequest, names: Sequence[str]
) -> tuple[Choice, Sequence[str]]:
    asked = request.tool_choice
    if isinstance(asked, FunctionChoice):
        check_named("tool_choice.function.name", asked.function.name, names)
        return "required", [asked.function.name]
    if isinstance(asked, CustomChoice):
        raise unsupported("tool_choice.type", "Use 'function'.")
    if isinstance(asked, AllowedTools):
        body = asked.allowed_tools
        chosen = [_named_in(tool) for tool in body.tools]
        return check_allowed("tool_choice.allowed_tools", body.mode, chosen, names)
    return asked or "auto", names


def _named_in(tool: Schema) -> Any:
    """Return the name in `{"type": "function", "function": {"name": ...}}`, None in all else."""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if tool == {"type": "function", "function": {"name": name}} else None


def _deprecated_choice(
    request: CreateChatCompletionRequest, names: Sequence[str]
) -> tuple[Choice, Sequence[str]]:
    asked = request.function_call
    if isinstance(asked, FunctionName):
        if asked.name not in names:
            raise _invalid("function_call.name", f"there is no {asked.name!r} among 'functions'")
        return "required", [asked.name]
    return asked or "auto", names


def _invalid(param: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for '{param}': {reason}.", param=param, code="invalid_value"
    )
