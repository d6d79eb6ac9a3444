"""Lines of a JSONL file from a stream of bytes, in memory that does not grow with the file."""

from collections.abc import Iterable, Iterator
from json import JSONDecoder
from typing import Any, NamedTuple

import orjson

MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_VALUES = 200_000  # of one line: a million keys would take 100 MB of memory
_BOM = b"\xef\xbb\xbf"
_HINT_CHARACTERS = 8
_KEY_CHARACTERS = 40


class Line(NamedTuple):
    """A line's number, from 1, and its bytes; None where it was too long to keep."""

    number: int
    data: bytes | None


class BadLine(Exception):
    """A line that is no JSON object; the text says what it is."""


class LineSplitter:
    """Cuts chunks of bytes into lines. Blank lines are counted and passed over.

    A line over `MAX_LINE_BYTES` is given without its bytes, so that memory stays bounded.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._number = 0
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Yield the lines that end in `chunk`."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            if self._rest or self._skipping or not self._number or end - start > MAX_LINE_BYTES:
                self._keep(chunk[start:end])
                line = self._take()
                if line is not None:
                    yield line
            else:  # the whole line is in the chunk, as most are
                self._number += 1
                data = chunk[start:end]
                if data and not data.isspace():
                    yield Line(self._number, data)
            start = end + 1
        self._keep(chunk[start:])

    def close(self) -> Iterator[Line]:
        """Yield the last line, where the file does not end with a newline."""
        if self._rest or self._skipping:
            line = self._take()
            if line is not None:
                yield line

    def _keep(self, part: bytes) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(part) > MAX_LINE_BYTES:
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += part

    def _take(self) -> Line | None:
        self._number += 1
        data, skipped = bytes(self._rest), self._skipping
        self._rest.clear()
        self._skipping = False
        if skipped:
            return Line(self._number, None)
        if self._number == 1:
            data = data.removeprefix(_BOM)
        return Line(self._number, data) if data.strip() else None


def lines(chunks: Iterable[bytes]) -> Iterator[Line]:
    """Yield the lines of a whole stream."""
    splitter = LineSplitter()
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.close()


def parse(line: Line) -> dict[str, Any]:
    """Return the line's JSON object; raise BadLine where it is none."""
    if line.data is None:
        raise BadLine(
            f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB; split the example up"
        )
    if len(line.data) > MAX_VALUES and line.data.count(b",") > MAX_VALUES:
        raise BadLine(f"the line has more than {MAX_VALUES} values; split the example up")
    try:
        value = orjson.loads(line.data)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"not JSON: {error.msg} (character {error.pos + 1})") from None
    if not isinstance(value, dict):
        raise BadLine(f"needed a JSON dictionary, got {_kind(value)}")
    return value


class _GivenTwice(Exception):
    """A dictionary has a key twice."""


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _GivenTwice(next(key for n, key in enumerate(keys) if key in keys[:n]))


# orjson keeps the last of two equal keys and tells nobody, so the pairs are looked at once more.
# Numbers become floats: of any length, at no cost.
_decoder = JSONDecoder(object_pairs_hook=_refuse_doubles, parse_int=float)


def parse_unique(line: Line) -> dict[str, Any]:
    """Return the line's JSON object, as `parse` does; raise BadLine where it has a key twice."""
    value = parse(line)
    if _is_surely_unique(line.data or b"", value):
        return value
    try:
        _decoder.raw_decode((line.data or b"").decode().lstrip())
    except _GivenTwice as twice:
        key = str(twice)
        shown = key if len(key) <= _KEY_CHARACTERS else key[: _KEY_CHARACTERS - 3] + "..."
        raise BadLine(f"the key {shown!r} stands twice in one dictionary") from None
    except RecursionError:
        raise BadLine("nested too deeply") from None
    return value


def _is_surely_unique(data: bytes, value: dict[str, Any]) -> bool:
    """Whether a line of nothing but messages and texts has as many quotes as its keys and texts.

    With an escape in it that cannot be told: the pairs are to be looked at.
    """
    messages = value.get("messages")
    if len(value) != 1 or type(messages) is not list or b"\\" in data:
        return False
    texts = 1
    for message in messages:
        if type(message) is not dict:
            return False
        for text in message.values():
            if type(text) is not str:
                return False
        texts += 2 * len(message)
    return data.count(b'"') == 2 * texts


def hint(line: Line) -> str:
    """Return the line's first characters, for a message."""
    text = (line.data or b"").decode("utf-8", "replace").strip()
    return text[:_HINT_CHARACTERS] + ("..." if len(text) > _HINT_CHARACTERS else "")


def short(value: object) -> str:
    """Return a value as a message quotes it: its first characters."""
    try:
        text = repr(value)
    except RecursionError:  # as deep as JSON may be is deeper than Python prints
        return "a deeply nested value"
    return text if len(text) <= _KEY_CHARACTERS else text[: _KEY_CHARACTERS - 3] + "..."


def _kind(value: object) -> str:
    names = {str: "a string", list: "a list", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
