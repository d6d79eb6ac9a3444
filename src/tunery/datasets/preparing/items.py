"""An item of a source: what one line, row or element of a file holds. Knows no file format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunery.domain.errors import InvalidRequest

Progress = Callable[[int], None]  # is told how many of the file's bytes are read


class Item(NamedTuple):
    """One item: its number, from 1, and its value, or why there is none.

    `data` is the value's own JSON text, where the file is JSON Lines.
    """

    number: int
    value: dict[str, Any] | None
    problem: str | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file that can be read from its beginning, as often as it is asked for.

    `columns` are those of a table, in order; other files have none.
    """

    kind: str  # as people call the format
    unit: str  # what an item is there: "line", "row" or "item"
    size_bytes: int
    read: Callable[[Progress], Iterator[Item]]
    columns: tuple[str, ...] = ()


class Unreadable(InvalidRequest):
    """The file as a whole cannot be read; the text says why, and what to do."""
