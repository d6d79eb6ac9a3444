"""A response that is kept, so that it can be fetched and gone on from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Item = Mapping[str, Any]
"""A message, a call or its output as the wire writes it: a message is a role and parts."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response's row: what was asked beyond `previous_id`, and the object that was answered."""

    id: str
    previous_id: str | None
    model: str
    input_items: tuple[Item, ...]
    response: Mapping[str, Any]
    created_at: int
    expires_at: int

    @property
    def items(self) -> tuple[Item, ...]:
        """Return what it adds to a conversation that goes on from it."""
        return (*self.input_items, *self.response["output"])


def text_length(items: Iterable[Item]) -> int:
    """Return the characters of text in the items."""
    return sum(map(_length, items))


def _length(item: Item) -> int:
    output = item.get("output", ())
    if isinstance(output, str):
        return len(output)
    parts = [*item.get("content", ()), *output]
    return len(item.get("arguments", "")) + sum(len(part.get("text", "")) for part in parts)
