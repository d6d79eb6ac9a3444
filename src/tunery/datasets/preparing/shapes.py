"""From items to lines of a training file, whatever they were written for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Any

import orjson

from tunery.datasets.completion_pairs import is_pair
from tunery.datasets.preferences import is_preference
from tunery.datasets.preparing.chat_exports import (
    NoConversation,
    from_alpaca,
    from_chatgpt,
    from_sharegpt,
)
from tunery.datasets.preparing.columns import ColumnMapping, given, guess
from tunery.datasets.preparing.items import Item, Source, Unreadable
from tunery.datasets.preparing.text_sources import TEXT
from tunery.domain.files import LineFormat

_LOOKED_AT = 200  # items, until one tells the shape


class Shape(StrEnum):
    """What a file's items are."""

    CHAT = "messages"
    PAIR = "prompts and completions"
    PREFERENCE = "preferences"
    CHATGPT = "a ChatGPT export"
    SHAREGPT = "ShareGPT conversations"
    ALPACA = "Alpaca instructions"
    TABLE = "columns"
    TEXTS = "texts"  # with no prompt
    LINES = "training lines"  # already, of whichever kind


@dataclass(frozen=True, slots=True)
class Plan:
    """How items become lines.

    `mapping` is of tables only. `system` is put before each conversation that has no system
    message. `target` is what the lines are to be.
    """

    shape: Shape
    target: LineFormat
    mapping: ColumnMapping | None = None
    columns: tuple[str, ...] = ()
    system: str | None = None

    def line(self, item: Item) -> tuple[dict[str, Any] | None, str | None]:
        """Return an item as a line, which is still to be checked; or what is wrong with it."""
        if item.value is None:
            return None, item.problem
        try:
            line = self._line(item.value)
        except NoConversation as reason:
            return None, str(reason)
        if self.system is not None:
            line = _with_system(line, self.system)
        return line, None

    def _line(self, value: dict[str, Any]) -> dict[str, Any]:
        match self.shape:
            case Shape.CHATGPT:
                return from_chatgpt(_needed(value, "mapping"))
            case Shape.SHAREGPT:
                return from_sharegpt(_needed(value, "conversations"))
            case Shape.ALPACA:
                return from_alpaca(_needed(value, "output"))
            case Shape.TEXTS:
                return {"prompt": "", "completion": value[TEXT]}
            case Shape.TABLE:
                return self._row(value)
            case Shape.PAIR if self.target is LineFormat.CHAT and is_pair(value):
                return _chat(value.get("prompt"), value.get("completion"))
            case Shape.CHAT if isinstance(value.get("messages"), str):
                return _parsed(value)
        return value

    def _row(self, value: Mapping[str, Any]) -> dict[str, Any]:
        mapping = self.mapping or ColumnMapping()
        cells = {part: _text(value.get(column)) for part, column in mapping.named()}
        before = [{"role": "user", "content": cells.get("prompt", "")}]
        if cells.get("system"):
            before.insert(0, {"role": "system", "content": cells["system"]})
        if mapping.is_preference:
            return {
                "input": {"messages": before},
                "preferred_output": [_answer(cells["preferred"])],
                "non_preferred_output": [_answer(cells["non_preferred"])],
            }
        if self.target is LineFormat.COMPLETION:
            return {"prompt": cells.get("prompt", ""), "completion": cells["completion"]}
        return {"messages": [*before, _answer(cells["completion"])]}


def plan_for(
    source: Source,
    parts: Mapping[str, str | None],
    *,
    system: str | None = None,
    target: LineFormat | None = None,
) -> Plan:
    """Return how the items of a source become lines; raise where nothing tells.

    `parts` are the columns that were named, by part; `target` is what lines are to be, if that was
    said: else pairs stay pairs where no system message is to be put before them.
    """
    seen = [item.value for item in islice(source.read(_unheard), _LOOKED_AT) if item.value]
    named = any(parts.values())
    shape = Shape.TABLE if named else _shape_of(source, seen)
    pairs = system is None and shape in (Shape.PAIR, Shape.TEXTS)
    wanted = target or (LineFormat.COMPLETION if pairs else LineFormat.CHAT)
    if shape is Shape.TEXTS and wanted is LineFormat.CHAT:
        raise Unreadable(
            "Plain lines of text ask nothing, so they cannot become chats; leave out --system and"
            " --to chat, or give a file with questions and answers."
        )
    if wanted is LineFormat.COMPLETION and shape not in (Shape.PAIR, Shape.TEXTS, Shape.TABLE):
        raise Unreadable(f"{shape} cannot become prompts and completions; leave out --to text.")
    if wanted is LineFormat.COMPLETION and system is not None:
        raise Unreadable("Prompts and completions have no system message; leave out --system.")
    if shape is not Shape.TABLE:
        target_ = LineFormat.PREFERENCE if shape is Shape.PREFERENCE else wanted
        return Plan(shape, target_, system=system)
    columns = source.columns or _keys(seen)
    mapping = given(columns, parts) or guess(columns)
    plan = Plan(shape, wanted, mapping, tuple(columns), system)
    return plan if mapping is None else with_mapping(plan, mapping)


def with_mapping(plan: Plan, mapping: ColumnMapping) -> Plan:
    """Return a plan with another mapping of columns."""
    target = LineFormat.PREFERENCE if mapping.is_preference else plan.target
    return replace(plan, mapping=mapping, target=target)


def _shape_of(source: Source, seen: Sequence[dict[str, Any]]) -> Shape:
    if source.columns == (TEXT,) and source.kind == "text":
        return Shape.TEXTS
    for value in seen:
        keys = set(value)
        if "mapping" in keys and "messages" not in keys:
            return Shape.CHATGPT
        if isinstance(value.get("conversations"), list):
            return Shape.SHAREGPT
        if "messages" in keys:
            return Shape.CHAT
        if keys >= {"input", "preferred_output"} or (is_preference(value) and _is_openais(value)):
            return Shape.PREFERENCE
        if keys >= {"instruction", "output"}:
            return Shape.ALPACA
        if source.columns or not keys >= {"prompt", "completion"}:
            return Shape.TABLE
        return Shape.PAIR
    if source.columns:
        return Shape.TABLE
    return Shape.CHAT  # with no item that can be read: each is told with its own fault


def _is_openais(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("input"), dict)


def _keys(seen: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for value in seen for key in value))


def _needed(value: dict[str, Any], key: str) -> dict[str, Any]:
    if key not in value:
        raise NoConversation(f"the key {key!r} is missing")
    return value


def _parsed(value: dict[str, Any]) -> dict[str, Any]:
    """Return a line whose messages, and tools, are JSON in a cell of a table."""
    line = {key: one for key, one in value.items() if one != ""}
    for key in ("messages", "tools", "functions"):
        if isinstance(line.get(key), str):
            try:
                line[key] = orjson.loads(line[key])
            except orjson.JSONDecodeError as error:
                raise NoConversation(f"{key!r} is no JSON: {error.msg}") from None
    return line


def _with_system(line: dict[str, Any], system: str) -> dict[str, Any]:
    holder = line.get("input", line) if "messages" not in line else line
    messages = holder.get("messages") if isinstance(holder, dict) else None
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
        return line
    if messages[0].get("role") in ("system", "developer"):
        return line
    first = {"role": "system", "content": system}
    changed = {**holder, "messages": [first, *messages]}
    return changed if holder is line else {**line, "input": changed}


def _chat(prompt: Any, completion: Any) -> dict[str, Any]:
    user = {"role": "user", "content": _text(prompt)}
    return {"messages": [user, _answer(_text(completion))]}


def _answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _text(value: Any) -> str:
    """Return a cell as a text; of a list of messages, as some preferences are, the last one's."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[-1], dict) and "content" in value[-1]:
        return _text(value[-1]["content"])
    return "" if value is None else orjson.dumps(value).decode()


def _unheard(done: int) -> None:
    del done
