"""Which engine makes room for which."""

from collections.abc import Callable

from tunery.cli.engines import Held, by_use, make_room

DEFAULT = Held("default", 40, 60.0, ending=False)
OLD, NEW = Held("old", 30, 50.0, ending=False), Held("new", 20, 5.0, ending=False)
EVERY = [NEW, DEFAULT, OLD]  # 90 bytes


def idle(*names: str) -> Callable[[str], bool]:
    return lambda digest: digest in names


ALL_IDLE = idle("default", "old", "new")


def test_nobody_ends_where_there_is_room() -> None:
    assert make_room(EVERY, 10, 100, "default", ALL_IDLE) == []
    assert make_room([], 100, 100, "default", ALL_IDLE) == []


def test_the_longest_unused_ends_first_and_the_default_last() -> None:
    assert [engine.digest for engine in by_use(EVERY, "default")] == ["old", "new", "default"]
    assert make_room(EVERY, 11, 100, "default", ALL_IDLE) == ["old"]
    assert make_room(EVERY, 40, 100, "default", ALL_IDLE) == ["old"]
    assert make_room(EVERY, 41, 100, "default", ALL_IDLE) == ["old", "new"]
    assert make_room(EVERY, 61, 100, "default", ALL_IDLE) == ["old", "new", "default"]


def test_one_that_makes_an_answer_stays() -> None:
    assert make_room(EVERY, 11, 100, "default", idle("new", "default")) == ["new"]
    assert make_room(EVERY, 31, 100, "default", idle("new")) is None
    assert make_room(EVERY, 11, 100, "default", idle()) is None


def test_what_never_fits_ends_nobody() -> None:
    assert make_room(EVERY, 101, 100, "default", ALL_IDLE) is None


def test_one_that_is_ending_counts_as_gone_and_is_not_ended_again() -> None:
    leaving = Held("old", 30, 50.0, ending=True)
    assert make_room([NEW, DEFAULT, leaving], 40, 100, "default", ALL_IDLE) == []
    assert make_room([NEW, DEFAULT, leaving], 41, 100, "default", ALL_IDLE) == ["new"]
