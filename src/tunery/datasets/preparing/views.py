"""A fit line as the checks of content look at it: what is asked, what is answered, and by whom."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from tunery.datasets.completion_pairs import is_pair
from tunery.datasets.conversation import plain_text
from tunery.datasets.preferences import NON_PREFERRED, PREFERRED, is_preference
from tunery.domain.files import LineFormat

_BETWEEN = "\x1e"  # messages; ASCII's record separator
_WITHIN = "\x1f"


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
    if is_pair(line):
        prompt, completion = line["prompt"], line["completion"]
        said = f"{prompt}\n{completion}"
        return LineView(
            LineFormat.COMPLETION, line, prompt, completion, prompt, completion, said, None
        )
    if is_preference(line):
        shared = line["input"]
        preferred, other = (
            next(line[key] for key in keys if key in line)[0] for keys in (PREFERRED, NON_PREFERRED)
        )
        answer = f"{_spelled(preferred)}{_BETWEEN}{_spelled(other)}"
        return _chat(LineFormat.PREFERENCE, line, shared, shared["messages"], preferred, answer)
    messages = line["messages"]
    last = messages[-1]
    return _chat(LineFormat.CHAT, line, line, messages[:-1], last, _spelled(last))


def _chat(
    kind: LineFormat,
    line: Mapping[str, Any],
    holder: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
    last: Mapping[str, Any],
    answer: str,
) -> LineView:
    asked = _BETWEEN.join([_spelled(message) for message in before])
    if len(holder) > 1:
        rest = {key: value for key, value in holder.items() if key in ("tools", "functions")}
        asked = f"{asked}{_BETWEEN}{_json(rest)}" if rest else asked
    user_text = ""
    system: str | None = None
    said = []
    for message in before:
        content = message.get("content")
        text = content if isinstance(content, str) else plain_text(content)
        if message["role"] in ("system", "developer"):
            system = text if system is None else f"{system}\n{text}"
            continue
        if message["role"] == "user":
            user_text = text
        said.append(text)
    content = last.get("content")
    answer_text = content if isinstance(content, str) else plain_text(content)
    said.append(answer_text or answer)
    return LineView(
        kind,
        line,
        asked,
        answer,
        user_text,
        answer_text,
        "\n".join(said),
        system,
        [*before, last],
    )


def _spelled(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if len(message) == 2 and type(content) is str:
        return f"{message['role']}{_WITHIN}{content}"
    return _json(message)


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
