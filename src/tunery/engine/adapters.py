"""Which adapters are in memory, and who uses them.

An adapter is known by its name, `<key>@<digest>`, which never comes to mean other weights. A place
is given to another adapter only while nobody uses it, and takes the memory of its adapter's rank.
"""

import mmap

from tunery.domain.errors import Overloaded, TuneryError
from tunery.model.adapter_file import AdapterWeights
from tunery.model.base import BaseNetwork
from tunery.model.lora import AdapterRows
from tunery.model.serving import serve


class AdapterStack:
    """Adapters over one base, at most so many and so many bytes; the longest unused make room.

    Raises TuneryError where the bound on memory holds no adapter of the highest rank.
    """

    def __init__(self, network: BaseNetwork, places: int, max_rank: int, most_bytes: int) -> None:
        self._decoder = network.decoder
        self.rows = AdapterRows(places, max_rank, network.dtype)
        self.shapes = network.shapes()
        self.max_rank = max_rank
        self._number_bytes = network.dtype.itemsize
        self._most_bytes = most_bytes
        if self.bytes_of(max_rank) > most_bytes:
            raise TuneryError(
                f"Got adapter_bytes {most_bytes}; one adapter of rank {max_rank} takes"
                f" {self.bytes_of(max_rank)}. Raise it, or lower max_rank."
            )
        self._layers = serve(network, self.rows, places, max_rank)
        self._free = list(range(places))
        self._places: dict[str, int] = {}  # in order of last use, oldest first
        self._ranks: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._users: dict[str, int] = {}
        self.loads = 0  # since the start: what was put into a place,
        self.evictions = 0  # and what was pushed out of one

    def __len__(self) -> int:
        return len(self._places)

    @property
    def bytes(self) -> int:
        """Return the memory of all that are resident."""
        return sum(self._bytes.values())

    def bytes_of(self, rank: int) -> int:
        """Return the memory of an adapter on every layer, in the form in which they are kept now.

        Natively in eight bits it is one piece, else whole pages of each matrix.
        """
        fused = self._decoder.fused
        if fused is not None and (size := fused.adapter_bytes(rank)) is not None:
            return size
        rows = [
            rank * size * self._number_bytes for shape in self.shapes.values() for size in shape
        ]
        return sum(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in rows)

    def count_again(self) -> None:
        """Note how much those that are resident take now: the form they are kept in has changed."""
        self._bytes = {name: self.bytes_of(rank) for name, rank in self._ranks.items()}

    def load(self, name: str, weights: AdapterWeights) -> None:
        """Put an adapter into a place; raise Overloaded when there is no room but what is in use.

        What makes room is let go of only once it is certain that there is enough.
        """
        if name in self._places:
            return
        needed = self.bytes_of(weights.rank)
        for old in self._in_the_way(needed):
            self.unload(old)
            self.evictions += 1
        place = self._free.pop()
        self.rows.ranks[place] = weights.rank
        for target, matrices in weights.layers.items():
            self._layers[target].set(place, *matrices, weights.scale)
        self._places[name], self._bytes[name] = place, needed
        self._ranks[name] = weights.rank
        self.loads += 1

    def unload(self, name: str) -> bool:
        """Give the adapter's place and memory back; return False while somebody uses it."""
        if self._users.get(name):
            return False
        if name in self._places:
            place = self._places.pop(name)
            del self._bytes[name], self._ranks[name]
            for layer in self._layers.values():
                layer.clear(place)
            self._free.append(place)
        return True

    def acquire(self, name: str) -> int | None:
        """Return the adapter's place and count a user, or None where it is not in memory."""
        place = self._places.pop(name, None)
        if place is None:
            return None
        self._places[name] = place
        self._users[name] = self._users.get(name, 0) + 1
        return place

    def release(self, name: str) -> None:
        """Count a user less."""
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]

    def _in_the_way(self, needed: int) -> list[str]:
        """Return the adapters that make room for one of `needed` bytes."""
        found: list[str] = []
        idle = (name for name in self._places if not self._users.get(name))
        places, left = len(self._free), self._most_bytes - self.bytes
        while not places or left < needed:
            name = next(idle, None)
            if name is None:
                raise Overloaded("All the memory for tuned models is in use; try again.")
            found.append(name)
            places, left = places + 1, left + self._bytes[name]
        return found
