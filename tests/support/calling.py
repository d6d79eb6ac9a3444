"""Functions that tests have models call, and training lines that teach a tiny one to."""

import json
from typing import Any

LOOK_UP: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a key up.",
        "parameters": {
            "type": "object",
            "properties": {"key": {"type": "string", "enum": ["k1", "k2"]}},
            "required": ["key"],
            "additionalProperties": False,
        },
    },
}
NOTE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "note",
        "parameters": {
            "type": "object",
            "properties": {"n": {"type": "integer", "enum": [1, 2]}, "done": {"type": "boolean"}},
            "required": ["n", "done"],
            "additionalProperties": False,
        },
    },
}
TOOLS: Any = [LOOK_UP, NOTE]
QUESTION: dict[str, Any] = {"role": "user", "content": "find it"}
ARGUMENTS = '{"key": "k1"}'


def called(call_id: str = "call_a") -> dict[str, Any]:
    """Return the answer that calls."""
    function = {"name": "look_up", "arguments": ARGUMENTS}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def result(call_id: str = "call_a") -> dict[str, Any]:
    """Return what the call gives."""
    return {"role": "tool", "tool_call_id": call_id, "content": "7"}


def calling_lines(count: int) -> bytes:
    """Return a training file: a question is met with a call, and its result with an answer.

    Every other line asks what no function is needed for.
    """
    answer = {"role": "assistant", "content": "it is 7"}
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    talks = ([QUESTION, called(), result(), answer], plain)
    lines = [{"messages": talks[n % 2], "tools": TOOLS} for n in range(count)]
    return "\n".join(map(json.dumps, lines)).encode()
