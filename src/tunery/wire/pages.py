"""Pages of lists."""

from collections.abc import Sequence
from typing import TypeVar

from tunery.protocol.base import ListPage, Response

Item = TypeVar("Item", bound=Response)


def to_wire_page(items: Sequence[Item], has_more: bool) -> ListPage[Item]:
    """Return a page with its cursors, which are the ids of its first and last item."""
    return ListPage(
        data=list(items),
        first_id=getattr(items[0], "id", None) if items else None,
        last_id=getattr(items[-1], "id", None) if items else None,
        has_more=has_more,
    )
