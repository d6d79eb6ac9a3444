"""What a training line must be. One function a format; each returns what is wrong, or None.

Messages say where in the line, what was got, what was needed. They quote at most a few characters
of the line: they are shown in logs of the job's owner.
"""

from collections.abc import Iterable
from typing import Any

from tunery.datasets.completion_pairs import check_pair, is_pair
from tunery.datasets.conversation import NAME, find_unpaired, turns_of
from tunery.datasets.preferences import NON_PREFERRED, PREFERRED, is_preference
from tunery.datasets.reader import BadLine, lines, parse_unique, short
from tunery.datasets.tool_checks import check_calls, check_tools
from tunery.domain.files import FileReport, LineError, LineFormat

MAX_LISTED_ERRORS = 20
_UNEXPECTED = "Unexpected file format, expected either prompt/completion pairs or chat messages."
_NAMES = {
    LineFormat.CHAT: "chat messages",
    LineFormat.COMPLETION: "a prompt/completion pair",
    LineFormat.PREFERENCE: "a preference pair",
}
_LINE_KEYS = ("messages", "tools", "functions", "parallel_tool_calls")
_INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")
_PLAIN_ROLES = ("system", "user", "assistant")
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MESSAGE_KEYS: dict[str, tuple[str, ...]] = {
    "system": ("name",),
    "developer": ("name",),
    "user": ("name",),
    "assistant": ("weight", "tool_calls", "function_call"),
    "tool": ("tool_call_id",),
    "function": ("name",),
}
# What messages carry beside their text, as it comes out of logs: nothing, when it is empty.
_EMPTY_KEYS = (
    "name",
    "refusal",
    "annotations",
    "audio",
    "function_call",
    "tool_calls",
    "tool_call_id",
)


def check_file(chunks: Iterable[bytes]) -> FileReport:
    """Read a training file; name every bad line, up to a cap, and count the rest.

    The first line that is of a known format decides for all of them.
    """
    examples = error_count = 0
    errors: list[LineError] = []
    checker = LineChecker()
    for line in lines(chunks):
        examples += 1
        try:
            problem = checker.problem_of(parse_unique(line))
        except BadLine as error:
            problem = str(error)
        if problem is not None:
            error_count += 1
            if len(errors) < MAX_LISTED_ERRORS:
                errors.append(LineError(line.number, problem))
    return FileReport(examples, tuple(errors), error_count, checker.expected or LineFormat.CHAT)


class LineChecker:
    """Says what is wrong with one line after another; `expected` is what the first of them was."""

    def __init__(self, expected: LineFormat | None = None) -> None:
        self.expected = expected

    def problem_of(self, value: dict[str, Any]) -> str | None:
        """Return what is wrong with a line, or None."""
        found = _format_of(value)
        self.expected = self.expected or found
        return _check_line(value, found, self.expected)


def _format_of(value: dict[str, Any]) -> LineFormat | None:
    if "messages" in value:
        return LineFormat.CHAT
    if is_pair(value):
        return LineFormat.COMPLETION
    return LineFormat.PREFERENCE if is_preference(value) else None


def _check_line(
    value: dict[str, Any], found: LineFormat | None, expected: LineFormat | None
) -> str | None:
    if found is not None and expected is not None and found is not expected:
        before = f"The lines before it have {_NAMES[expected]}, this one {_NAMES[found]}"
        opening = "" if LineFormat.PREFERENCE in (found, expected) else f"{_UNEXPECTED} "
        return f"{opening}{before}; a file has one kind"
    if expected is LineFormat.PREFERENCE:
        return check_preference_line(value)
    return check_pair(value) if found is LineFormat.COMPLETION else check_chat_line(value)


def check_chat_line(value: dict[str, Any]) -> str | None:
    """Return what is wrong with a supervised line `{"messages": [...]}`, or None."""
    if "messages" not in value:
        return f"{_UNEXPECTED} The key 'messages' is missing"
    if _is_plain_chat(value):
        return None
    for key in value:
        if key not in _LINE_KEYS:
            return f"contains an extra {short(key)}; known are {', '.join(_LINE_KEYS)}"
    problem = check_tools(value)
    if problem is not None:
        return problem
    problem = _check_messages(value)
    if problem is not None:
        return problem
    messages = value["messages"]
    if messages[-1]["role"] != "assistant":
        return f"the last message is from {messages[-1]['role']!r}; it needs to be from 'assistant'"
    unpaired = find_unpaired([*messages[:-1], messages[-1] | {"tool_calls": None}])
    if unpaired is not None:
        return f"message {unpaired.number + 1} {unpaired.problem}"
    if all(m.get("weight", 1) == 0 for m in messages if m["role"] == "assistant"):
        return "every assistant message has weight 0: there is nothing to learn"
    return None


def check_preference_line(value: dict[str, Any]) -> str | None:
    """Return what is wrong with a line of a conversation and two answers to it, or None."""
    for key in ("input", *value):
        if key not in value:
            return f"the key {key!r} is missing"
        if key not in ("input", *PREFERRED, *NON_PREFERRED):
            known = f"input, {PREFERRED[0]} and {NON_PREFERRED[0]}"
            return f"contains an extra {short(key)}; known are {known}"
    shared = value["input"]
    if not isinstance(shared, dict):
        return f"'input' is {short(shared)}; needed is a dictionary of {', '.join(_INPUT_KEYS)}"
    problem = _check_input(shared)
    if problem is not None:
        return f"'input': {problem}"
    answers = []
    for spellings in (PREFERRED, NON_PREFERRED):
        given = [key for key in spellings if key in value]
        if len(given) != 1:
            both = f"has {' and '.join(map(repr, given))}, which are the same thing"
            return both if given else f"the key {spellings[0]!r} is missing"
        problem = _check_output(value[given[0]], shared)
        if problem is not None:
            return f"{given[0]!r} {problem}"
        answers += value[given[0]]
    preferred, other = turns_of(answers)
    if preferred == other:
        return "both outputs are the same: there is nothing to prefer"
    return None


def _check_input(shared: dict[str, Any]) -> str | None:
    for key in ("messages", *shared):
        if key not in shared:
            return f"the key {key!r} is missing"
        if key not in _INPUT_KEYS:
            return f"contains an extra {short(key)}; known are {', '.join(_INPUT_KEYS)}"
    problem = check_tools(shared) or _check_messages(shared)
    if problem is not None:
        return problem
    for number, message in enumerate(shared["messages"], 1):
        if message.get("weight", 0) != 0:
            return f"message {number} has weight 1; only the outputs are learned"
    unpaired = find_unpaired(shared["messages"])
    return None if unpaired is None else f"message {unpaired.number + 1} {unpaired.problem}"


def _check_output(output: Any, shared: dict[str, Any]) -> str | None:
    if not isinstance(output, list) or len(output) != 1:
        return f"is {short(output)}; needed is a list of one message"
    (message,) = output
    problem = _check_message(message) or check_calls(message, shared)
    if problem is not None:
        return problem
    if message["role"] != "assistant":
        return f"is from {message['role']!r}; it needs to be from 'assistant'"
    return "has a 'weight'; it is always learned" if "weight" in message else None


def _check_messages(value: dict[str, Any]) -> str | None:
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        return "'messages' needs to be a list of at least one message"
    for number, message in enumerate(messages, 1):
        problem = _check_message(message) or check_calls(message, value)
        if problem is not None:
            return f"message {number} {problem}"
    return None


def _is_plain_chat(value: dict[str, Any]) -> bool:
    """Whether a line is roles and texts up to an answer, as most are: nothing is wrong with it."""
    messages = value["messages"]
    if len(value) != 1 or type(messages) is not list or not messages:
        return False
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return False
        if message.get("role") not in _PLAIN_ROLES or type(message.get("content")) is not str:
            return False
        if not message["content"]:
            return False
    return bool(messages[-1]["role"] == "assistant")


def _check_message(message: Any) -> str | None:
    if not isinstance(message, dict):
        return "is not a dictionary"
    if "role" not in message:
        return "has no 'role'"
    role = message["role"]
    if not isinstance(role, str) or role not in ROLES:
        return f"has role {short(role)}; needed one of {', '.join(ROLES)}"
    for key, value in message.items():
        if key in _EMPTY_KEYS and value in (None, []):
            continue
        if key == "weight" and role != "assistant":
            return f"has a 'weight', but is from {role!r}; only assistant messages are weighted"
        if key not in ("role", "content", *_MESSAGE_KEYS[role]):
            return f"has the key {short(key)}; a message from {role!r} has no place for it"
    name = message.get("name")
    if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
        return f"has name {short(name)}; needed 1 to 64 characters without spaces or any of <|\\/>"
    weight = message.get("weight", 1)
    if type(weight) is not int or weight not in (0, 1):
        return f"has weight {short(weight)}; needed 0 or 1"
    if message.get("content") in (None, "") and _calls_something(message):
        return None
    return _check_content(message.get("content"), role)


def _calls_something(message: dict[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _check_content(content: Any, role: str) -> str | None:
    if isinstance(content, str):
        return None if content or role != "assistant" else "is from 'assistant' and empty"
    if not isinstance(content, list) or not content:
        return f"has content {short(content)}; needed a text or a list of text parts"
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            return f"has a content part {short(kind)}; this model reads 'text' parts only"
        if set(part) != {"type", "text"} or not isinstance(part["text"], str):
            return "has a text part that is not {'type': 'text', 'text': <a text>}"
    if role == "assistant" and not any(part["text"] for part in content):
        return "is from 'assistant' and empty"
    return None
