"""How long a run will take yet, on a clock that is set by hand."""

import pytest

from tunery.training.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_left_costs_what_was_done() -> None:
    clock = Clock()
    progress = Progress(learned=1000, seen=600, proven=200, clock=clock)
    assert progress.seconds_left is None
    clock.now += 4
    progress.begin()
    clock.now += 6
    # Learned are 100 tokens in 10 s of which the step took 6: 300 of 3 x 1,200 + 600 units.
    assert progress.learned(100) == pytest.approx(100 / 6)
    assert progress.seconds_left == pytest.approx(10 / 300 * 3900)
    clock.now += 5
    progress.seen(150)
    assert progress.seconds_left == pytest.approx(15 / 450 * 3750)


def test_more_than_was_expected_leaves_nothing() -> None:
    clock = Clock()
    progress = Progress(learned=10, seen=0, proven=0, clock=clock)
    clock.now += 1
    progress.learned(20)
    assert progress.seconds_left == 0
