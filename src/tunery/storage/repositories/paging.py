"""Pages of a list: newest or oldest first, after a given id."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.errors import InvalidRequest

Order = Literal["asc", "desc"]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page, and whether more follow."""

    items: tuple[Item, ...]
    has_more: bool


def select_page(
    connection: Connection,
    table: sa.Table,
    conditions: Sequence[sa.ColumnElement[bool]],
    *,
    after: str | None,
    limit: int,
    order: Order,
) -> tuple[Sequence[sa.Row[Any]], bool]:
    """Return up to `limit` rows behind the one with id `after`, and whether more follow.

    Raises InvalidRequest if `after` names no row of this list.
    """
    query = sa.select(table).where(*conditions)
    if after is not None:
        seq = connection.execute(
            sa.select(table.c.seq).where(*conditions, table.c.id == after)
        ).scalar_one_or_none()
        if seq is None:
            raise _unknown_cursor(after)
        query = query.where(table.c.seq > seq if order == "asc" else table.c.seq < seq)
    ordered = query.order_by(table.c.seq.asc() if order == "asc" else table.c.seq.desc())
    rows = connection.execute(ordered.limit(limit + 1)).all()
    return rows[:limit], len(rows) > limit


def cut_page(
    items: Sequence[Item], ids: Sequence[str], *, after: str | None, limit: int, order: Order
) -> Page[Item]:
    """Return a page of a list that is at hand, oldest first, as `select_page` does of rows."""
    pairs = list(zip(ids, items, strict=True))
    if order == "desc":
        pairs.reverse()
    if after is not None:
        place = next((n for n, (name, _) in enumerate(pairs) if name == after), None)
        if place is None:
            raise _unknown_cursor(after)
        pairs = pairs[place + 1 :]
    return Page(tuple(item for _, item in pairs[:limit]), len(pairs) > limit)


def _unknown_cursor(after: str) -> InvalidRequest:
    return InvalidRequest(
        f"Got after={after[:80]!r}, which is no id of this list; pass the last id of the page"
        " before.",
        param="after",
    )
