"""Which engines run: the default base's, and those that are wanted, within a bound of bytes.

Where a new one needs room, the least recently wanted engine that makes no answer ends, the default
one last. It drains: what reaches it in that moment is still answered.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import httpx2
import orjson

from tunery.cli.console import err
from tunery.cli.kept import Kept
from tunery.domain.models import BaseModel
from tunery.inference.places import FRESH_S, EnginePlaces

_HEALTH_S = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """An engine that runs: its base, its memory, and how long ago it was wanted."""

    digest: str
    bytes: int
    unused_s: float
    ending: bool


def make_room(
    held: Sequence[Held],
    needed: int,
    bound: int,
    default: str,
    is_idle: Callable[[str], bool],
) -> list[str] | None:
    """Return which engines have to end, so that `needed` bytes more stay within `bound`.

    None where it cannot be done now. The longest unused ends first, the default last; those that
    are ending anyway count as gone.
    """
    free = bound - needed - sum(engine.bytes for engine in held if not engine.ending)
    chosen: list[str] = []
    for engine in by_use(held, default):
        if free >= 0:
            break
        if not engine.ending and is_idle(engine.digest):
            chosen.append(engine.digest)
            free += engine.bytes
    return chosen if free >= 0 else None


def by_use(held: Sequence[Held], default: str) -> list[Held]:
    """Return the engines in the order in which they are to end."""
    return sorted(held, key=lambda one: (one.digest == default, -one.unused_s))


class Engines:
    """The engines' processes, each kept running until it has to make room."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        places: EnginePlaces,
        bases: Callable[[], Iterable[BaseModel]],
        estimate: Callable[[BaseModel], int],
        measure: Callable[[int], int | None],
        bound: int,
    ) -> None:
        """`bases` gives the catalogue, the default first; `measure` a process's bytes by its id."""
        self._command, self._environment = list(command), environment
        self._places, self._bases = places, bases
        self._estimate, self._measure, self._bound = estimate, measure, bound
        self._kept: dict[str, Kept] = {}
        self._needed: dict[str, int] = {}
        self._refused: set[str] = set()
        for digest in places.announced():  # of engines that ended with the last supervisor
            places.address(digest).unlink(missing_ok=True)

    def keep(self) -> None:
        """Start what is wanted and fits, restart what has crashed, end what is in the way."""
        bases = list(self._bases())
        default = bases[0].digest
        unused = {digest: ago for ago, digest in self._places.wanted()}
        for digest, kept in list(self._kept.items()):
            self._attend(digest, kept, digest == default or unused.get(digest, FRESH_S) < FRESH_S)
        self._shrink(self._held(unused), default)
        wanted = sorted((ago, digest) for digest, ago in unused.items() if ago < FRESH_S)
        for _, digest in wanted:
            base = next((base for base in bases if base.digest == digest), None)
            if base is not None and digest not in self._kept:
                self._start(base, bases[0], self._held(unused))
        if default not in self._kept:  # it comes back once there is room, wanted or not
            needed = sum(one.bytes for one in self._held(unused)) + self._estimate(bases[0])
            if needed <= self._bound or not self._kept:
                self._launch(bases[0], bases[0])

    def stop(self, seconds: float) -> None:
        """End every engine."""
        for kept in self._kept.values():
            kept.end()
        for kept in self._kept.values():
            kept.wait(seconds)

    def _attend(self, digest: str, kept: Kept, is_wanted: bool) -> None:
        """Have a crashed engine started again, and forget one that has ended or nobody wants."""
        if kept.lives:
            return
        if kept.ending or not is_wanted:
            kept.end()
            kept.wait(0)
            self._places.address(digest).unlink(missing_ok=True)
            del self._kept[digest]
        else:
            kept.keep()

    def _shrink(self, held: Sequence[Held], default: str) -> None:
        """End an engine where those that run have grown beyond the bound; one always stays."""
        if sum(engine.bytes for engine in held) > self._bound:
            for engine in by_use(held, default)[:-1]:
                if engine.ending or self._is_idle(engine.digest):
                    self._end([engine.digest])
                    return

    def _held(self, unused: Mapping[str, float]) -> list[Held]:
        return [
            Held(digest, self._bytes(digest, kept), unused.get(digest, float("inf")), kept.ending)
            for digest, kept in self._kept.items()
        ]

    def _bytes(self, digest: str, kept: Kept) -> int:
        """Return what the engine takes: measured once it is up, as was reckoned until then."""
        up = self._places.address(digest).exists()
        measured = None if not up or kept.pid is None else self._measure(kept.pid)
        return self._needed[digest] if measured is None else measured

    def _start(self, base: BaseModel, default: BaseModel, held: Sequence[Held]) -> None:
        """Start a base's engine if there is room, or make some."""
        needed = self._estimate(base)
        chosen = make_room(held, needed, self._bound, default.digest, self._is_idle)
        self._end(chosen or [])
        if needed > self._bound and base.digest not in self._refused:
            self._refused.add(base.digest)
            err.print(
                f"The engine of {base.name} may take {needed} bytes, all engines {self._bound};"
                " raise TUNERY_ENGINE__MAX_BYTES, or lower TUNERY_ENGINE__CACHE_BYTES or"
                " TUNERY_ENGINE__ADAPTER_BYTES."
            )
        if chosen == [] and sum(one.bytes for one in held) + needed <= self._bound:
            self._launch(base, default)

    def _launch(self, base: BaseModel, default: BaseModel) -> None:
        is_default = base.digest == default.digest
        port = {} if is_default else {"TUNERY_ENGINE__PORT": "0"}
        name = "engine" if is_default else f"engine of {base.name}"
        command = [*self._command, "--model", base.name]
        kept = Kept(name, command, {**self._environment, **port})
        self._kept[base.digest], self._needed[base.digest] = kept, self._estimate(base)
        kept.keep()

    def _end(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self._kept[digest].end()
            self._places.mark(digest).unlink(missing_ok=True)  # else it would come back at once

    def _is_idle(self, digest: str) -> bool:
        """Whether the engine is up and makes no answer, by its own word."""
        try:
            address = orjson.loads(self._places.address(digest).read_bytes())
            headers = {"authorization": f"Bearer {address['secret']}"}
            health = httpx2.get(
                f"{address['url']}/health", headers=headers, timeout=_HEALTH_S, trust_env=False
            ).json()
            return not health["rows_active"] and not health["rows_waiting"]
        except (OSError, ValueError, KeyError, TypeError, httpx2.HTTPError):
            return False
