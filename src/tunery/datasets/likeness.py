"""How alike two answers to one prompt are: to the letter, in substance, as JSON, and in words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

_EDGES = " .,;:!?\"'`"
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Likeness:
    """Of a new answer to an old one.

    `normalized` takes no account of case, of white space, of punctuation at the edges, and of how a
    character is encoded (Unicode NFKC). `json_equal` is None where the old answer is no JSON object
    or list; the order of keys does not matter there. `token_f1` is the harmonic mean of precision
    and recall over words and signs, from 0 to 1 (Rajpurkar et al. 2016, section 5).
    """

    exact: bool
    normalized: bool
    json_equal: bool | None
    token_f1: float


def likeness(old: str, new: str) -> Likeness:
    """Return how alike two answers are."""
    return Likeness(
        exact=old == new,
        normalized=_normalized(old) == _normalized(new),
        json_equal=_json_equal(old, new),
        token_f1=token_f1(old, new),
    )


def token_f1(old: str, new: str) -> float:
    """Return F1 over the words of both, each counted as often as it stands there."""
    wanted, given = (Counter(_WORD.findall(_normalized(text))) for text in (old, new))
    if not wanted or not given:
        return float(wanted == given)
    shared = (wanted & given).total()
    return 2 * shared / (wanted.total() + given.total())


def answer_text(message: Mapping[str, Any]) -> str:
    """Return what an assistant's message says, and calls, as one text.

    Calls are JSON with their arguments as values: how those are spaced, and the calls' ids, do not
    matter.
    """
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    text = content if isinstance(content, str) else ""
    called = [one.get("function") or {} for one in message.get("tool_calls") or ()]
    if message.get("function_call"):
        called.append(message["function_call"])
    if not called:
        return text or (message.get("refusal") or "")
    calls = [{"name": one.get("name"), "arguments": _value(one.get("arguments"))} for one in called]
    value = {"content": text, "calls": calls} if text else calls
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _value(arguments: object) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments


def _normalized(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(_EDGES)


def _json_equal(old: str, new: str) -> bool | None:
    try:
        wanted = orjson.loads(old)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(wanted, dict | list):
        return None
    try:
        return _same(wanted, orjson.loads(new))
    except orjson.JSONDecodeError:
        return False


def _same(left: Any, right: Any) -> bool:
    """Compare JSON values: 1 and 1.0 are one number, and true is none."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)
