"""What the tools and the calls of a training line must be; each function returns what is wrong.

The checks of the wire say the same of requests, in pydantic's words.
"""

import re
from collections.abc import Mapping
from typing import Any

from tunery.datasets.reader import short
from tunery.datasets.tools import arguments_object, training_functions

MAX_TOOLS = 128
_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
_DEFINED_BY = {"name": str, "description": str, "parameters": dict, "strict": bool}


def check_tools(line: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the tools of a line, or with its deprecated functions."""
    if line.get("tools") is not None and line.get("functions") is not None:
        return "has 'tools' and 'functions', which are the same thing; one of them is needed"
    for key in ("tools", "functions"):
        value = line.get(key)
        if value is None:
            continue
        if not isinstance(value, list) or len(value) > MAX_TOOLS:
            return f"{key!r} needs to be a list of at most {MAX_TOOLS}, got {short(value)}"
        names: set[str] = set()
        for number, one in enumerate(value, 1):
            problem = _check_tool(one) if key == "tools" else _check_definition(one)
            name = None if problem else (one["function"] if key == "tools" else one)["name"]
            if name in names:
                problem = f"has the name {name!r} of an earlier one"
            if problem is not None:
                return f"{key[:-1]} {number} {problem}"
            names.add(str(name))
    parallel = line.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        return f"'parallel_tool_calls' is {short(parallel)}; needed true or false"
    if parallel is not None and line.get("tools") is None:
        return "has 'parallel_tool_calls' without 'tools'"
    return None


def check_calls(message: Mapping[str, Any], line: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the calls of a message, or with the id of the one it answers."""
    role = message["role"]
    needed = {"tool": "tool_call_id", "function": "name"}.get(role)
    if needed is not None and not (isinstance(message.get(needed), str) and message[needed]):
        return f"is from {role!r} and has {needed} {short(message.get(needed))}; a text is needed"
    calls, old = message.get("tool_calls"), message.get("function_call")
    if calls and old:
        return "has 'tool_calls' and 'function_call', which are the same thing"
    if old:
        return _check_called(old, line)
    if not calls:
        return None
    if not isinstance(calls, list):
        return f"has tool_calls {short(calls)}; a list is needed"
    if len(calls) > 1 and line.get("parallel_tool_calls") is False:
        return "has several calls, and 'parallel_tool_calls' is false"
    ids = set()
    for number, call in enumerate(calls, 1):
        problem = _check_call(call) or _check_called(call["function"], line)
        if problem is not None:
            return f"has call {number}, which {problem}"
        ids.add(call["id"])
    return None if len(ids) == len(calls) else "has two calls of the same id"


def _check_call(call: Any) -> str | None:
    if not isinstance(call, dict) or set(call) != {"id", "type", "function"}:
        return f"is {short(call)}; needed are id, type and function"
    if call["type"] != "function":
        return f"is of type {short(call['type'])}; needed 'function'"
    if not isinstance(call["id"], str) or not call["id"]:
        return f"has id {short(call['id'])}; a text is needed"
    return None


def _check_called(called: Any, line: Mapping[str, Any]) -> str | None:
    if not isinstance(called, dict) or set(called) != {"name", "arguments"}:
        return f"calls {short(called)}; needed are name and arguments"
    name, arguments = called["name"], called["arguments"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"calls {short(name)}; a function's name has 1 to 64 of a-z, A-Z, 0-9, _ and -"
    listed = [one.name for one in training_functions(line)]
    if listed and name not in listed:
        return f"calls {name!r}, which is not among the line's functions"
    if not isinstance(arguments, str) or arguments_object(arguments) is None:
        return f"has arguments {short(arguments)}; needed is a JSON object as a text"
    return None


def _check_tool(tool: Any) -> str | None:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, dict) else tool
        return f"is of type {short(kind)}; needed 'function'"
    if set(tool) != {"type", "function"}:
        return f"has the keys {short(sorted(tool))}; needed are type and function"
    return _check_definition(tool["function"])


def _check_definition(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"is {short(value)}; needed is a function's definition"
    for key, one in value.items():
        kind = _DEFINED_BY.get(key)
        if kind is None:
            return f"has the key {short(key)}; known are {', '.join(_DEFINED_BY)}"
        if one is not None and not isinstance(one, kind):
            return f"has {key} {short(one)}"
    name = value.get("name")
    if name is None or not _NAME.fullmatch(name):
        return f"has name {short(name)}; needed 1 to 64 of a-z, A-Z, 0-9, _ and -"
    return None
