"""Which rows have a slot: by turns, in bounded memory, and never computing twice what is there.

Knows no network: it gives out slots and copies what stands in them.
"""

from dataclasses import dataclass

from tunery.domain.errors import TuneryError
from tunery.engine.row import Row
from tunery.engine.slots import LEAST_SHARED, Slots, packed_ids, shared
from tunery.engine.waiting import FairQueue


@dataclass(frozen=True, slots=True)
class Limits:
    """The scheduler's bounds.

    `prefill_tokens` bounds the prompt tokens of a step; one that also makes tokens takes as many as
    `step_s` has time for (engine/pace.py).
    """

    rows: int
    context_tokens: int
    queue: int
    prefill_tokens: int
    step_s: float
    cache_bytes: int


class Seats:
    """Seats the rows that wait, has them take turns, and finds what of their texts is computed.

    Raises TuneryError where the bound on the cache's memory holds no text of the longest length.
    """

    def __init__(self, waiting: FairQueue[Row], slots: Slots, limits: Limits) -> None:
        longest = slots.bytes_of(limits.context_tokens)
        if longest > limits.cache_bytes:
            raise TuneryError(
                f"Got cache_bytes {limits.cache_bytes}; one text of {limits.context_tokens} tokens"
                f" takes {longest}. Raise it, or lower context_tokens."
            )
        self._waiting = waiting
        self._slots = slots
        self._limits = limits
        self.rows: dict[int, Row] = {}
        """The rows with a slot, by slot; those that have theirs for longest come first."""

    def fill(self) -> None:
        """Give slots to the rows whose turn it is, as far as there is room.

        A tenant that nothing is made for need not wait for another's long answers to end: whoever
        has most in the making has the newest wait again.
        """
        while (row := self._waiting.first()) is not None:
            while not self._has_room(row):
                busiest = self._waiting.busiest()
                if self._waiting.running(row.tenant) or self._waiting.running(busiest) < 2:
                    return
                self._park([one for one in self.rows.values() if one.tenant == busiest][-1])
            self._start(self._waiting.take())

    def _has_room(self, row: Row) -> bool:
        fits = self._slots.bytes_of(row.tokens) <= self._left()
        return fits and len(self.rows) < self._limits.rows

    def _left(self) -> int:
        """Return the memory that the rows' tokens, computed or not, leave of the bound."""
        taken = sum(self._slots.bytes_of(row.tokens) for row in self.rows.values())
        return self._limits.cache_bytes - taken

    def _start(self, row: Row) -> None:
        row.text_ids = packed_ids(row.ids(0, row.tokens))
        row.slot, have = self._slots.take(
            row.owner,
            row.text_ids,
            row.most_reused,
            self._left() - self._slots.bytes_of(row.tokens),
        )
        self.rows[row.slot] = row
        self._reuse(row, have)
        self._follow(row)

    def _reuse(self, row: Row, tokens: int) -> None:
        """Note that the row's slot holds its first tokens now."""
        if not row.parked:
            self._waiting.count(row.tenant, row.computed - tokens)
            row.cached = tokens
        row.computed = tokens

    def _follow(self, row: Row) -> None:
        """Find the row, started before this one, that has most of its text to compute as well."""
        row.leader, row.shared = None, row.computed + LEAST_SHARED - 1
        if row.owner is None or row.most_reused <= row.shared:
            return
        for other in self.rows.values():
            if other is row:
                return
            if other.owner == row.owner:
                count = min(row.most_reused, shared(other.text_ids, row.text_ids))
                if count > row.shared:
                    row.leader, row.shared = other, count

    def waits(self, row: Row) -> bool:
        """Return whether another row has yet to compute this one's beginning; else take that."""
        if row.leader is None:
            return False
        if row.leader.computed < row.shared:
            return True
        self._slots.copy(row.leader.slot, row.slot, row.shared)
        row.leader = None
        self._reuse(row, row.shared)
        return False

    def _park(self, row: Row) -> None:
        """Have a row wait again; what it has computed is kept as long as there is room."""
        self.leave(row, keep=True)
        row.computed, row.parked = 0, True
        if row.scores is not None:
            row.scores.clear()
            row.untold.clear()
        self._waiting.put_back(row.tenant, row)

    def leave(self, row: Row, *, keep: bool) -> None:
        """Take a row out of its slot; those that wait for its text look for it elsewhere."""
        del self.rows[row.slot]
        if keep and row.owner is not None and row.computed >= LEAST_SHARED:
            self._slots.keep(row.slot, row.owner, row.ids(0, row.computed))
        else:
            self._slots.free(row.slot, row.tokens)
        row.slot, row.leader = -1, None
        for other in self.rows.values():
            if other.leader is row and other.owner is not None:
                have = other.computed
                found = self._slots.fill(
                    other.slot, other.owner, other.text_ids, have, other.most_reused
                )
                self._reuse(other, found)
                self._follow(other)

    def make_room(self) -> None:
        """Keep the tokens' memory within its bound: answers grow, and the newest waits again."""
        while self._left() < 0:
            self._park(list(self.rows.values())[-1])
        self._slots.shrink(self._left())
