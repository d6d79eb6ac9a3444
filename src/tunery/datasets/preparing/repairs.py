"""Repairs of lines that the service would refuse: what is meant is kept, and nothing is guessed.

Each takes a line of any shape and returns it mended, or the very same object where there is
nothing for it to do.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from tunery.datasets.checks import ROLES

Line = dict[str, Any]
_ROLE_OF = {
    "human": "user",
    "customer": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "agent": "assistant",
}
_LINE_KEYS = ("messages", "tools", "functions", "parallel_tool_calls")
_PAIR_KEYS = ("prompt", "completion")
_MESSAGE_KEYS = {
    "system": ("role", "content", "name"),
    "developer": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": ("role", "content", "weight", "tool_calls", "function_call"),
    "tool": ("role", "content", "tool_call_id"),
    "function": ("role", "content", "name"),
}
_WEIGHTS = {True: 1, False: 0, "0": 0, "1": 1}  # 1.0 and 0.0 are found as well


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair: its name, the question whether to do it, and what does it."""

    name: str
    question: str  # with {lines} for how many
    mend: Callable[[Line], Line]


def _each_message(line: Line, change: Callable[[Line], Line]) -> Line:
    messages = line.get("messages")
    if not isinstance(messages, list):
        return line
    changed = [change(one) if isinstance(one, dict) else one for one in messages]
    if all(new is old for new, old in zip(changed, messages, strict=True)):
        return line
    return {**line, "messages": changed}


def _rename_roles(line: Line) -> Line:
    def change(message: Line) -> Line:
        role = message.get("role")
        if not isinstance(role, str) or role in ROLES:
            return message
        small = role.strip().lower()
        meant = small if small in ROLES else _ROLE_OF.get(small)
        return message if meant is None else {**message, "role": meant}

    return _each_message(line, change)


def _drop_line_keys(line: Line) -> Line:
    if "messages" in line:
        known: tuple[str, ...] = _LINE_KEYS
    elif set(_PAIR_KEYS) <= set(line):
        known = _PAIR_KEYS
    else:
        return line
    if all(key in known for key in line):
        return line
    return {key: value for key, value in line.items() if key in known}


def _drop_message_keys(line: Line) -> Line:
    def change(message: Line) -> Line:
        known = _MESSAGE_KEYS.get(str(message.get("role")))
        if known is None or all(key in known for key in message):
            return message
        return {key: value for key, value in message.items() if key in known}

    return _each_message(line, change)


def _spell_names(line: Line) -> Line:
    def change(message: Line) -> Line:
        name = message.get("name")
        if not isinstance(name, str) or message.get("role") == "function":
            return message
        good = re.sub(r"[\s<|\\/>]+", "_", name.strip())[:64]
        if good == name:
            return message
        rest = {key: value for key, value in message.items() if key != "name"}
        return {**rest, "name": good} if good else rest

    return _each_message(line, change)


def _set_weights(line: Line) -> Line:
    def change(message: Line) -> Line:
        weight = message.get("weight")
        if "weight" not in message or (type(weight) is int and weight in (0, 1)):
            return message
        if weight is None:
            return {key: value for key, value in message.items() if key != "weight"}
        if isinstance(weight, str | float | bool) and weight in _WEIGHTS:
            return {**message, "weight": _WEIGHTS[weight]}
        return message

    return _each_message(line, change)


def _write_arguments(line: Line) -> Line:
    def call(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("arguments"), dict):
            return {**value, "arguments": orjson.dumps(value["arguments"]).decode()}
        return value

    def outer(value: Any) -> Any:
        if not isinstance(value, dict) or "function" not in value:
            return value
        inner = call(value["function"])
        return value if inner is value["function"] else {**value, "function": inner}

    def change(message: Line) -> Line:
        calls, old = message.get("tool_calls"), message.get("function_call")
        if isinstance(calls, list):
            new = [outer(one) for one in calls]
            if any(a is not b for a, b in zip(new, calls, strict=True)):
                message = {**message, "tool_calls": new}
        mended = call(old)
        return message if mended is old else {**message, "function_call": mended}

    return _each_message(line, change)


def _drop_parallel(line: Line) -> Line:
    if "parallel_tool_calls" not in line or line.get("tools") is not None:
        return line
    return {key: value for key, value in line.items() if key != "parallel_tool_calls"}


def _end_with_answer(line: Line) -> Line:
    messages = line.get("messages")
    if not isinstance(messages, list):
        return line
    last = max(
        (n for n, m in enumerate(messages) if isinstance(m, dict) and m.get("role") == "assistant"),
        default=None,
    )
    if last is None or last == len(messages) - 1:
        return line
    return {**line, "messages": messages[: last + 1]}


def _write_texts(line: Line) -> Line:
    if "messages" in line or not set(_PAIR_KEYS) <= set(line):
        return line
    if all(isinstance(line[key], str) for key in _PAIR_KEYS):
        return line

    def text(value: Any) -> Any:
        is_plain = isinstance(value, bool | int | float)
        return orjson.dumps(value).decode() if is_plain else value

    return {**line, **{key: text(line[key]) for key in _PAIR_KEYS}}


REPAIRS = (
    Repair("rename_roles", "Spell the roles of {lines} as OpenAI does", _rename_roles),
    Repair(
        "drop_line_keys", "Take keys out of {lines} that have no place in them", _drop_line_keys
    ),
    Repair(
        "drop_message_keys",
        "Take keys out of messages of {lines} that have no place in them",
        _drop_message_keys,
    ),
    Repair("spell_names", "Write names in {lines} without spaces or any of <|\\/>", _spell_names),
    Repair("set_weights", "Write weights of {lines} as 0 or 1", _set_weights),
    Repair("write_arguments", "Write arguments of calls in {lines} as JSON text", _write_arguments),
    Repair(
        "drop_parallel", "Take 'parallel_tool_calls' out of {lines} without tools", _drop_parallel
    ),
    Repair("write_texts", "Write numbers of {lines} as texts", _write_texts),
    Repair("end_with_answer", "End {lines} with their last answer", _end_with_answer),
)


def mended(line: Line) -> tuple[Line, tuple[Repair, ...]]:
    """Return a line after every repair that changes it, and which those were."""
    done = []
    for repair in REPAIRS:
        changed = repair.mend(line)
        if changed is not line:
            line = changed
            done.append(repair)
    return line, tuple(done)
