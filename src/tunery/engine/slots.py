"""What stands in each slot of the cache: a row's tokens, or those of one that ended, or nothing.

What was computed for an owner, a tenant with one adapter, is found again by that owner only. Knows
no row.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from tunery.model.cached import SlotCache

LEAST_SHARED = 16  # fewer tokens are computed sooner than they are copied
Owner = tuple[str, str | None]
"""A tenant, and the name of an adapter of its own or None for the base."""


def packed_ids(ids: Sequence[int]) -> bytes:
    """Return ids as bytes that are compared quickly."""
    return array("I", ids).tobytes()


def shared(one: bytes, other: bytes) -> int:
    """Return how many ids two packed texts have in common from their beginning."""
    size = array("I").itemsize
    low, high = 0, min(len(one), len(other)) // size
    while low < high:
        middle = (low + high + 1) // 2
        if one[low * size : middle * size] == other[low * size : middle * size]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class _Kept:
    owner: Owner
    ids: bytes
    tokens: int


class Slots:
    """Gives slots out and takes them back; what stays in them makes room when it has to."""

    def __init__(self, cache: SlotCache, count: int) -> None:
        self._cache = cache
        self._free = list(range(count))
        self._kept: dict[int, _Kept] = {}  # the longest unused first

    def bytes_of(self, tokens: int) -> int:
        """Return the memory that a slot of so many tokens takes."""
        return self._cache.bytes_of(tokens)

    def take(self, owner: Owner | None, ids: bytes, most: int, kept_bytes: int) -> tuple[int, int]:
        """Return a slot and how many of the text's tokens, at most `most`, it holds already.

        Kept tokens are copied, except where the slot holds nothing else, or is the last to be had.
        What is then kept beside takes at most `kept_bytes`.
        """
        source, count = self._find(owner, ids, most)
        if source is not None and count == self._kept[source].tokens:
            return self._take_over(source, count), count
        self.shrink(kept_bytes)
        if source not in self._kept:
            source, count = None, 0
        if self._free:
            slot = self._free.pop(0)
        else:  # the source is the youngest: it goes when it is the only one
            slot = self._take_over(next(iter(self._kept)), 0 if len(self._kept) > 1 else count)
        if source is not None and source != slot:
            self._cache.copy(source, slot, count)
        return slot, count

    def fill(self, slot: int, owner: Owner, ids: bytes, have: int, most: int) -> int:
        """Copy into a slot that holds `have` tokens what more is kept; return how many it holds."""
        source, count = self._find(owner, ids, most)
        if source is None or count < have + LEAST_SHARED:
            return have
        self._cache.copy(source, slot, count)
        return count

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first tokens of one row's slot into another's."""
        self._cache.copy(source, target, tokens)

    def keep(self, slot: int, owner: Owner, ids: Sequence[int]) -> None:
        """Take a slot back and keep its tokens for their owner."""
        self._kept[slot] = _Kept(owner, packed_ids(ids), len(ids))

    def free(self, slot: int, tokens: int) -> None:
        """Take a slot back and forget its tokens."""
        self._cache.clear(slot, 0, tokens)
        self._free.append(slot)
        self._free.sort()  # low slots first: rows that decode stand side by side

    def shrink(self, most_bytes: int) -> None:
        """Forget what is kept, the longest unused first, until it takes no more than that."""
        kept = sum(self.bytes_of(one.tokens) for one in self._kept.values())
        while self._kept and kept > most_bytes:
            slot = next(iter(self._kept))
            one = self._kept.pop(slot)
            kept -= self.bytes_of(one.tokens)
            self.free(slot, one.tokens)

    def _take_over(self, slot: int, tokens: int) -> int:
        """Forget that a slot is kept, and its tokens but the first ones."""
        self._cache.clear(slot, tokens, self._kept.pop(slot).tokens)
        return slot

    def _find(self, owner: Owner | None, ids: bytes, most: int) -> tuple[int | None, int]:
        """Return the kept slot that shares most tokens with a text, and how many."""
        best, longest = None, LEAST_SHARED - 1
        for slot, kept in self._kept.items():
            if kept.owner == owner and (count := min(most, shared(kept.ids, ids))) > longest:
                best, longest = slot, count
        if best is None:
            return None, 0
        self._kept[best] = self._kept.pop(best)  # the youngest now
        return best, longest
