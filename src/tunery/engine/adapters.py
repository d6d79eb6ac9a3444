"""Which adapters are in memory, and who uses them.

An adapter is known by its name, `<key>@<digest>`, which never comes to mean other weights. A place
is given to another adapter only while nobody uses it.
"""

from tunery.domain.errors import Overloaded
from tunery.model.adapter_file import AdapterWeights
from tunery.model.base import BaseNetwork
from tunery.model.lora import AdapterRows
from tunery.model.serving import serve


class AdapterStack:
    """A bounded number of adapters over one base; the least recently used one makes room."""

    def __init__(self, network: BaseNetwork, places: int, max_rank: int) -> None:
        self.rows = AdapterRows(places, max_rank, network.dtype)
        self.shapes = network.shapes()
        self.max_rank = max_rank
        self._layers = serve(network, self.rows, places, max_rank)
        self._free = list(range(places))
        self._places: dict[str, int] = {}  # in order of last use, oldest first
        self._users: dict[str, int] = {}
        self.loads = 0  # since the start: what was put into a place,
        self.evictions = 0  # and what was pushed out of one

    def __len__(self) -> int:
        return len(self._places)

    def load(self, name: str, weights: AdapterWeights) -> None:
        """Put an adapter into a place; raise Overloaded when every place is in use."""
        if name in self._places:
            return
        place = self._take_place()
        for target, layer in self._layers.items():
            if target in weights.layers:
                layer.set(place, *weights.layers[target], weights.scale)
            else:
                layer.clear(place)
        self._places[name] = place
        self.loads += 1

    def unload(self, name: str) -> bool:
        """Free the adapter's place; return False while somebody uses it."""
        if self._users.get(name):
            return False
        if name in self._places:
            self._free.append(self._places.pop(name))
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

    def _take_place(self) -> int:
        if self._free:
            return self._free.pop()
        for name in self._places:
            if not self._users.get(name):
                self.evictions += 1
                return self._places.pop(name)
        raise Overloaded("Every place for a tuned model is in use; try again.")
