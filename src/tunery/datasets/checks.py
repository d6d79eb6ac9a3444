"""What a training line must be. One function a format; each returns what is wrong, or None.

Messages say where in the line, what was got, what was needed. They quote at most a few characters
of the line: they are shown in logs of the job's owner.
"""

from collections.abc import Iterable
from typing import Any

from tunery.datasets.reader import BadLine, lines, parse_unique
from tunery.domain.files import FileReport, LineError

MAX_LISTED_ERRORS = 20
ROLES = ("system", "developer", "user", "assistant")
_MESSAGE_KEYS = ("role", "content", "weight")
# What answers carry beside their text, as it comes out of logs: nothing, when it is empty.
_EMPTY_KEYS = ("name", "refusal", "annotations", "audio", "function_call", "tool_calls")
_NOT_YET = {
    "tools": "tool calls cannot be trained yet",
    "functions": "function calls cannot be trained yet",
    "parallel_tool_calls": "tool calls cannot be trained yet",
}


def check_file(chunks: Iterable[bytes]) -> FileReport:
    """Read a supervised training file; name every bad line, up to a cap, and count the rest."""
    examples = error_count = 0
    errors: list[LineError] = []
    for line in lines(chunks):
        examples += 1
        try:
            problem = check_chat_line(parse_unique(line))
        except BadLine as error:
            problem = str(error)
        if problem is not None:
            error_count += 1
            if len(errors) < MAX_LISTED_ERRORS:
                errors.append(LineError(line.number, problem))
    return FileReport(examples, tuple(errors), error_count)


def check_chat_line(value: dict[str, Any]) -> str | None:
    """Return what is wrong with a supervised line `{"messages": [...]}`, or None."""
    if "messages" not in value:
        if "prompt" in value and "completion" in value:
            return "a prompt/completion pair; this model is trained on chat messages"
        if "input" in value and ("preferred_output" in value or "preferred_completion" in value):
            return "a preference pair; supervised training needs chat messages"
        return "the key 'messages' is missing"
    for key in value:
        if key in _NOT_YET:
            return f"the key {key!r}: {_NOT_YET[key]}"
        if key != "messages":
            return f"contains an extra {_short(key)}; only 'messages' is known"
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        return "'messages' needs to be a list of at least one message"
    for number, message in enumerate(messages, 1):
        problem = _check_message(message)
        if problem is not None:
            return f"message {number} {problem}"
    if messages[-1]["role"] != "assistant":
        return f"the last message is from {messages[-1]['role']!r}; it needs to be from 'assistant'"
    if all(m.get("weight", 1) == 0 for m in messages if m["role"] == "assistant"):
        return "every assistant message has weight 0: there is nothing to learn"
    return None


def _check_message(message: Any) -> str | None:
    if not isinstance(message, dict):
        return "is not a dictionary"
    if "role" not in message:
        return "has no 'role'"
    role = message["role"]
    if not isinstance(role, str) or role not in ROLES:
        if role in ("tool", "function"):
            return f"has role {role!r}: tool calls cannot be trained yet"
        return f"has role {_short(role)}; needed one of {', '.join(ROLES)}"
    for key, value in message.items():
        if key in _EMPTY_KEYS and value in (None, []):
            continue
        if key in ("tool_calls", "function_call"):
            return f"has {key!r}: tool calls cannot be trained yet"
        if key not in _MESSAGE_KEYS:
            return f"has the key {_short(key)}; this model's chat template has no place for it"
    if "weight" in message:
        if role != "assistant":
            return f"has a 'weight', but is from {role!r}; only assistant messages are weighted"
        if type(message["weight"]) is not int or message["weight"] not in (0, 1):
            return f"has weight {_short(message['weight'])}; needed 0 or 1"
    return _check_content(message.get("content"), role)


def _check_content(content: Any, role: str) -> str | None:
    if isinstance(content, str):
        return None if content or role != "assistant" else "is from 'assistant' and empty"
    if not isinstance(content, list) or not content:
        return f"has content {_short(content)}; needed a text or a list of text parts"
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            return f"has a content part {_short(kind)}; this model reads 'text' parts only"
        if set(part) != {"type", "text"} or not isinstance(part["text"], str):
            return "has a text part that is not {'type': 'text', 'text': <a text>}"
    if role == "assistant" and not any(part["text"] for part in content):
        return "is from 'assistant' and empty"
    return None


def _short(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:  # as deep as JSON may be is deeper than Python prints
        return "a deeply nested value"
    return text if len(text) <= 40 else text[:37] + "..."
