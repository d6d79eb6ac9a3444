"""Messages as clients and training lines write them, as the turns that a template renders.

What OpenAI has several spellings for has one here. It does not know what a template makes of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"[^\s<|\\/>]{1,64}")  # of who speaks


@dataclass(frozen=True, slots=True)
class Call:
    """A call that an assistant made: its arguments are JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. Of a tool's result, `call_id` says which call it answers, if that is known.

    `learned` is whether training is to learn it.
    """

    role: str
    content: str
    calls: tuple[Call, ...] = ()
    call_id: str | None = None
    name: str | None = None
    learned: bool = False


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A message, from 0, that is a call without its result, or a result without its call."""

    number: int
    problem: str
    field: str


def find_unpaired(messages: Sequence[Mapping[str, Any]]) -> Unpaired | None:
    """Return the first call without its result before the conversation goes on, or the reverse.

    The deprecated form has no ids: a result there needs a call of its name before it.
    """
    open_calls: dict[str, int] = {}
    called: str | None = None
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if open_calls.pop(message["tool_call_id"], None) is None:
                problem = (
                    f"answers the call {message['tool_call_id'][:64]!r}, and there is none of that"
                    " id that waits for it"
                )
                return Unpaired(number, problem, "tool_call_id")
            continue
        if message["role"] == "function" and message["name"] != called:
            problem = f"answers the function {message['name'][:64]!r}, which was not called before"
            return Unpaired(number, problem, "name")
        if open_calls:
            break
        called = (message.get("function_call") or {}).get("name")
        open_calls = {call["id"]: number for call in message.get("tool_calls") or ()}
    if not open_calls:
        return None
    (first, number), *_ = open_calls.items()
    return Unpaired(
        number,
        f"has the call {first[:64]!r}, which no message of role 'tool' answers",
        "tool_calls",
    )


def turns_of(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """Return the turns that messages are."""
    return [_turn(message) for message in messages]


def plain_text(content: str | Sequence[Mapping[str, Any]] | None) -> str:
    """Return a message's content as one text; its text parts are joined by newlines."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part["refusal" if "refusal" in part else "text"] for part in content)


def least_length(message: Mapping[str, Any]) -> int:
    """Return how many characters a message is rendered with, at the least.

    Arguments may be spaced, and spell each character as an escape of six.
    """
    called = (len("".join(call.arguments.split())) // 6 for call in _calls(message))
    return len(_text(message)) + sum(called)


def _turn(message: Mapping[str, Any]) -> Turn:
    role = message["role"]
    text, name = _text(message), message.get("name")
    if role in ("function", "tool"):
        return Turn("tool", text, call_id=message.get("tool_call_id"), name=name)
    if role == "assistant":
        return Turn(role, text, _calls(message), learned=message.get("weight", 1) == 1)
    # Templates know no names: one stands before what was said, as in a script.
    said = f"{name}: {text}" if name else text
    return Turn("system" if role == "developer" else role, said)


def _text(message: Mapping[str, Any]) -> str:
    """Return what a message says; an answer that refused says so."""
    return plain_text(message.get("content")) or message.get("refusal") or ""


def _calls(message: Mapping[str, Any]) -> tuple[Call, ...]:
    called = message.get("function_call")
    if called:
        return (Call("call_0", called["name"], called["arguments"]),)
    return tuple(
        Call(call.get("id") or f"call_{n}", call["function"]["name"], call["function"]["arguments"])
        for n, call in enumerate(message.get("tool_calls") or ())
    )
