"""Workers are killed at thirty random moments: what their jobs learn is the same to the byte."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightly.conftest import Figures
from support.kills import METHODS, MOMENTS, SETTINGS, VICTIMS, Harbor, Kill
from support.server import Server

KILLS = 30
BETWEEN_STARTS = 3  # `tunery up` waits longer each time before it starts a worker that was killed


class Record:
    """The kills that have taken place, each of them with the same bytes in the end."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.kills: list[Kill] = []
        self.started = time.monotonic()

    def keep(self) -> None:
        """Write down what is known so far."""
        kinds = {
            "killed": [kill.victims for kill in self.kills],
            "method": [kill.method for kill in self.kills],
            "found": [kill.found for kill in self.kills],
            "went on": [_where(kill.went_on) for kill in self.kills],
        }
        self.figures.keep(
            "kills",
            {"byte-identical": f"{len(self.kills)} of {KILLS}"}
            | {"drawn anew, since the job had ended": sum(kill.late for kill in self.kills)}
            | {
                f"{kind}: {name}": count
                for kind, names in kinds.items()
                for name, count in sorted(Counter(names).items())
            }
            | {"seconds in all": round(time.monotonic() - self.started)},
        )


def _where(went_on: str) -> str:
    return "after a step" if went_on.startswith("after") else went_on


@pytest.fixture(scope="module")
def record(figures: Figures) -> Iterator[Record]:
    record = Record(figures)
    yield record
    record.keep()


@pytest.fixture(scope="module")
def harbor(
    models: Path, tmp_path_factory: pytest.TempPathFactory, figures: Figures
) -> Iterator[Harbor]:
    with Server(tmp_path_factory.mktemp("killed"), models, **SETTINGS) as server:
        yield Harbor(server, seed=figures.seed % 2**31)


@pytest.mark.parametrize("number", range(KILLS))
def test_a_kill_changes_no_byte(harbor: Harbor, record: Record, number: int) -> None:
    rng = random.Random(f"{record.figures.seed} kill {number}")
    moment, method = MOMENTS[number % len(MOMENTS)], METHODS[number % len(METHODS)]
    if number and not number % BETWEEN_STARTS:
        harbor.restart()
    kill = harbor.kill(method, moment, rng.choice(VICTIMS), rng)
    record.kills.append(kill)
    print(number, kill, flush=True)
