"""A fit line as the checks of content look at it: what is asked, what is answered, and by whom."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from tunery.datasets.completion_pairs import is_pair
from tunery.datasets.conversation import plain_text
from tunery.datasets.preferences import NON_PREFERRED, PREFERRED
from tunery.domain.files import LineFormat

_BETWEEN = "\x1e"  # messages; ASCII's record separator
_WITHIN = "\x1f"
_SYSTEM_ROLES = ("system", "developer")


class LineView(NamedTuple):
    """A line's parts.

    `asked` and `answer` spell everything before the last answer, and that answer, so that equal
    texts are equal lines. `user_text` is what the user said last, `answer_text` what the last
    answer says, without its calls. `said` is all but the system's text.
    """

    kind: LineFormat
    line: Mapping[str, Any]
    asked: str
    answer: str
    user_text: str
    answer_text: str
    said: str
    system: str | None
    messages: Sequence[Mapping[str, Any]] = ()


def view_of(line: Mapping[str, Any]) -> LineView:
    """Return the parts of a line that the service takes."""
    messages = line.get("messages")
    if messages is not None:
        return _chat(LineFormat.CHAT, line, line, messages, _spelled(messages[-1]))
    if is_pair(line):
        prompt, completion = line["prompt"], line["completion"]
        said = f"{prompt}\n{completion}"
        return LineView(
            LineFormat.COMPLETION, line, prompt, completion, prompt, completion, said, None
        )
    shared = line["input"]
    preferred, other = (
        next(line[key] for key in keys if key in line)[0] for keys in (PREFERRED, NON_PREFERRED)
    )
    answer = f"{_spelled(preferred)}{_BETWEEN}{_spelled(other)}"
    return _chat(LineFormat.PREFERENCE, line, shared, [*shared["messages"], preferred], answer)


def _chat(
    kind: LineFormat,
    line: Mapping[str, Any],
    holder: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    answer: str,
) -> LineView:
    """Return the parts of a conversation, `holder` of which has its tools."""
    asked, said = [], []
    user_text = ""
    system: str | None = None
    last = messages[-1]
    for message in messages[:-1]:
        asked.append(_spelled(message))
        content, role = message.get("content"), message["role"]
        text = content if type(content) is str else plain_text(content)
        if role == "user":
            user_text = text
        elif role in _SYSTEM_ROLES:
            system = text if system is None else f"{system}\n{text}"
            continue
        said.append(text)
    if len(holder) > 1:
        tools = {key: value for key, value in holder.items() if key in ("tools", "functions")}
        asked += [_json(tools)] if tools else []
    content = last.get("content")
    answer_text = content if type(content) is str else plain_text(content)
    said.append(answer_text or answer)
    return LineView(
        kind,
        line,
        _BETWEEN.join(asked),
        answer,
        user_text,
        answer_text,
        "\n".join(said),
        system,
        messages,
    )


def _spelled(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if len(message) == 2 and type(content) is str:
        return f"{message['role']}{_WITHIN}{content}"
    return _json(message)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
