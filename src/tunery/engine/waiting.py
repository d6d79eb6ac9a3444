"""Who is next: tenants take turns by the work done for them. Knows no network and no row.

Work is counted in tokens. A tenant that nothing is made for comes first; among the others the one
that least was done for (virtual token counter: Sheng et al. 2024, "Fairness in serving large
language models", algorithm 2). Within a tenant the first to come is the first served.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tunery.domain.errors import Overloaded

Item = TypeVar("Item")


@dataclass(slots=True)
class _Tenant(Generic[Item]):
    """What a tenant that is present waits for; `begun` was taken once already."""

    begun: deque[Item] = field(default_factory=deque)
    new: deque[tuple[Item, int]] = field(default_factory=deque)
    running: int = 0


class FairQueue(Generic[Item]):
    """Waiting items of many tenants, at most `limit` of them new."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._present: dict[str, _Tenant[Item]] = {}
        self._done: dict[str, int] = {}  # work, of those present and those that were ahead

    def __len__(self) -> int:
        return sum(len(tenant.begun) + len(tenant.new) for tenant in self._present.values())

    def __iter__(self) -> Iterator[Item]:
        for tenant in self._present.values():
            yield from tenant.begun
            yield from (item for item, _ in tenant.new)

    def put(self, name: str, item: Item, work: int) -> Item | None:
        """Add an item that is `work` to start; return the one that lost its place to it, if any.

        Raises Overloaded where the queue is full and the tenant has its share of it: whoever has
        most waiting gives up the newest only to one that has at least two fewer.
        """
        lost = None
        if sum(len(tenant.new) for tenant in self._present.values()) >= self._limit:
            most = max(self._present.values(), key=lambda tenant: len(tenant.new))
            mine = self._present.get(name)
            if len(most.new) < 2 + (0 if mine is None else len(mine.new)):
                raise Overloaded("The engine's queue is full; try again.")
            lost, _ = most.new.pop()
        self._joined(name).new.append((item, work))
        self._forget_the_gone()
        return lost

    def first(self) -> Item | None:
        """Return the item whose turn it is."""
        name = self._next()
        if name is None:
            return None
        tenant = self._present[name]
        return tenant.begun[0] if tenant.begun else tenant.new[0][0]

    def take(self) -> Item:
        """Take the item whose turn it is; the work to start it counts as done for its tenant."""
        name = self._next()
        if name is None:
            raise IndexError("Nothing waits.")
        tenant = self._present[name]
        tenant.running += 1
        if tenant.begun:
            return tenant.begun.popleft()
        item, work = tenant.new.popleft()
        self._done[name] += work
        return item

    def put_back(self, name: str, item: Item) -> None:
        """Have an item that was taken wait again, before its tenant's others."""
        self._present[name].running -= 1
        self._present[name].begun.appendleft(item)

    def remove(self, name: str, item: Item) -> None:
        """Take out an item that waits."""
        tenant = self._present[name]
        if item in tenant.begun:
            tenant.begun.remove(item)
        else:
            tenant.new = deque(pair for pair in tenant.new if pair[0] is not item)
        self._forget_the_gone()

    def end(self, name: str) -> None:
        """Note that an item that was taken is at its end."""
        self._present[name].running -= 1
        self._forget_the_gone()

    def count(self, name: str, work: int) -> None:
        """Count work that was done for a tenant, or that was counted and proved unneeded."""
        self._done[name] += work

    def running(self, name: str) -> int:
        """Return how many items of a tenant were taken and are not at their end."""
        tenant = self._present.get(name)
        return 0 if tenant is None else tenant.running

    def busiest(self) -> str:
        """Return the tenant with the most items that were taken and are not at their end."""
        return max(self._present, key=self.running)

    def _next(self) -> str | None:
        waiting = (name for name, tenant in self._present.items() if tenant.begun or tenant.new)
        return min(waiting, key=self._turn, default=None)

    def _turn(self, name: str) -> tuple[bool, int]:
        return self.running(name) > 0, self._done[name]

    def _joined(self, name: str) -> _Tenant[Item]:
        """Return the tenant; one that was away has saved nothing up, and owes what it owed."""
        if name not in self._present:
            least = min((self._done[other] for other in self._present), default=0)
            self._done[name] = max(self._done.get(name, 0), least)
            self._present[name] = _Tenant()
        return self._present[name]

    def _forget_the_gone(self) -> None:
        gone = [n for n, t in self._present.items() if not (t.begun or t.new or t.running)]
        for name in gone:
            del self._present[name]
        least = min((self._done[name] for name in self._present), default=None)
        for name in [n for n in self._done if n not in self._present]:
            if least is None or self._done[name] <= least:
                del self._done[name]


def fair_shares(wanted: Mapping[str, int], budget: int) -> dict[str, int]:
    """Return how much of `budget` each gets: none more than it wants, the rest in equal parts.

    Whoever wants little gets it all (max-min fairness: Bertsekas and Gallager 1992, 6.5.2).
    """
    shares = {}
    for place, name in enumerate(sorted(wanted, key=lambda name: wanted[name])):
        shares[name] = min(wanted[name], budget // (len(wanted) - place))
        budget -= shares[name]
    return shares


def divided(wanted: Sequence[int], budget: int) -> list[int]:
    """Return how much of `budget` each of a tenant's texts gets, which come oldest first.

    Half is the oldest one's, so that none waits for ever; the rest goes to whoever wants least, so
    that a short text does not wait for a long one.
    """
    shares = [0] * len(wanted)
    shares[0] = min(wanted[0], (budget + 1) // 2)
    left = budget - shares[0]
    for place in sorted(range(len(wanted)), key=lambda place: wanted[place] - shares[place]):
        more = min(wanted[place] - shares[place], left)
        shares[place] += more
        left -= more
    return shares
