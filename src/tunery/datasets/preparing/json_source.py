"""A JSON file with one array of items, read item by item.

The array may be the whole file, or the only list of an object: `{"version": 1, "data": [...]}`.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tunery.datasets.preparing.items import Item, Progress, Unreadable
from tunery.datasets.preparing.text_sources import NOT_UTF8, chunks_of
from tunery.datasets.reader import short

_SPACE = re.compile(r"[ \t\r\n]*")
MAX_ITEM_CHARACTERS = 64 * 2**20
MAX_OBJECT_BYTES = 256 * 2**20


class _Faults:
    """A decoder, and what it met in the item at hand that JSON does not have, or has once."""

    def __init__(self) -> None:
        self.found: str | None = None
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._object, parse_constant=self._constant, parse_int=self._whole
        )

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            self.found = "has a key twice in one dictionary"
        return value

    def _constant(self, name: str) -> None:
        self.found = f"has {name}, which is not JSON"

    def _whole(self, digits: str) -> int | float:
        return int(digits) if len(digits) < 20 else float(digits)


def read_json(path: Path, encoding: str, progress: Progress) -> Iterator[Item]:
    """Yield the items of a JSON file."""
    text = _Text(path, encoding, progress)
    start = text.peek()
    if start == "[":
        text.position += 1
        yield from _array(path, text)
    elif start == "{":
        yield from _object(path, encoding, progress)
    else:
        raise Unreadable(f"{path.name} begins with {start!r}; a JSON array or object is needed.")


class _Text:
    """A window on a file's text that grows until an item fits, and moves on."""

    def __init__(self, path: Path, encoding: str, progress: Progress) -> None:
        self._chunks = chunks_of(path, encoding, progress)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self.window = ""
        self.position = 0
        self.ended = False

    def more(self) -> bool:
        """Read on, at least as much again as is there; return False at the end."""
        wanted = len(self.window) - self.position + 1
        parts = [self.window[self.position :]]
        self.position = 0
        got = 0
        while got < wanted:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.ended = True
                break
            parts.append(self._decoder.decode(chunk))
            got += len(parts[-1])
        self.window = "".join(parts)
        return got > 0

    def peek(self) -> str:
        """Return the next character that is not white space; an empty text at the end."""
        while True:
            match = _SPACE.match(self.window, self.position)
            self.position = self.position if match is None else match.end()
            if self.position < len(self.window):
                return self.window[self.position]
            if self.ended or not self.more():
                return ""


def _array(path: Path, text: _Text) -> Iterator[Item]:
    faults = _Faults()
    number = 0
    while text.peek() not in ("]", ""):
        number += 1
        yield _item(path, text, faults, number)
        follows = text.peek()
        if follows == ",":
            text.position += 1
        elif follows != "]":
            got = repr(follows) if follows else "the end of the file"
            raise Unreadable(f"{path.name}: got {got} after item {number}; needed ',' or ']'.")
    if not text.peek():
        raise Unreadable(f"{path.name} ends within its array, after item {number}; is it whole?")


def _item(path: Path, text: _Text, faults: _Faults, number: int) -> Item:
    while True:
        faults.found = None
        try:
            value, end = faults.decoder.raw_decode(text.window, text.position)
            # At the window's end, a number may go on behind it.
            if end < len(text.window) or text.ended:
                text.position = end
                return _checked(value, faults.found, number)
        except json.JSONDecodeError as error:
            if text.ended or len(text.window) - text.position > MAX_ITEM_CHARACTERS:
                raise Unreadable(f"{path.name}, item {number}: not JSON: {error.msg}.") from None
        except RecursionError:
            raise Unreadable(f"{path.name}, item {number}: nested too deeply.") from None
        text.more()


def _checked(value: Any, fault: str | None, number: int) -> Item:
    if fault is not None:
        return Item(number, None, fault)
    if not isinstance(value, dict):
        return Item(number, None, f"is {short(value)}; needed a JSON dictionary")
    try:
        orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError):
        return Item(number, None, NOT_UTF8)
    return Item(number, value)


def _object(path: Path, encoding: str, progress: Progress) -> Iterator[Item]:
    if path.stat().st_size > MAX_OBJECT_BYTES:
        raise Unreadable(
            f"{path.name} is one JSON object of more than {MAX_OBJECT_BYTES // 2**20} MiB; write"
            " it as an array of items, or as JSON Lines."
        )
    data = b"".join(chunks_of(path, encoding, progress)).removeprefix(codecs.BOM_UTF8)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unreadable(f"{path.name}: not JSON: {error.msg}.") from None
    lists = [one for one in value.values() if isinstance(one, list)]
    inner = lists[0] if len(lists) == 1 and "messages" not in value else [value]
    if not all(isinstance(one, dict) for one in inner):
        inner = [value]
    for number, one in enumerate(inner, 1):
        yield Item(number, one)
