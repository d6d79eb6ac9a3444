"""Turns between tenants, counted in work: nobody starves, and a full queue is shared as well."""

import pytest

from tunery.domain.errors import Overloaded
from tunery.engine.waiting import FairQueue, divided, fair_shares


def _serve(queue: FairQueue[str], count: int, made: int = 0) -> list[str]:
    """Take items one at a time, each with `made` tokens made, and return them in order."""
    taken = []
    for _ in range(count):
        item = queue.take()
        queue.count(item[0], made)
        queue.end(item[0])
        taken.append(item)
    return taken


def test_turns_go_by_work_and_not_by_requests() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for number in range(3):
        queue.put("a", f"a{number}", 300)
    for number in range(6):
        queue.put("b", f"b{number}", 100)
    # Done before each turn, of a and b: 0 0, 300 0, 300 100, 300 200, 300 300, 600 300, ...
    assert _serve(queue, 9) == ["a0", "b0", "b1", "b2", "a1", "b3", "b4", "b5", "a2"]
    assert len(queue) == 0
    assert queue.first() is None


def test_tokens_made_and_tokens_that_need_not_be_computed_count_too() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for number in range(3):
        queue.put("a", f"a{number}", 100)
        queue.put("b", f"b{number}", 100)
    assert _serve(queue, 1, made=150) == ["a0"]  # a: 250
    assert _serve(queue, 1, made=-60) == ["b0"]  # b: 40
    assert _serve(queue, 4) == ["b1", "b2", "a1", "a2"]  # b: 140, 240; a: 350


def test_a_tenant_that_nothing_is_made_for_comes_before_those_with_less_done() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for name in ("a0", "a1", "b0", "b1"):
        queue.put(name[0], name, 10)
    assert [queue.take(), queue.take()] == ["a0", "b0"]
    queue.count("a", 1000)
    queue.end("a")
    assert queue.first() == "a1"
    assert [queue.take(), queue.take()] == ["a1", "b1"]
    assert (queue.running("a"), queue.running("b"), queue.busiest()) == (1, 2, "b")


def test_who_was_away_has_saved_nothing_up_and_owes_what_it_owed() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for number in range(4):
        queue.put("a", f"a{number}", 100)
    assert _serve(queue, 2) == ["a0", "a1"]
    queue.put("b", "b0", 500)  # starts at a's 200
    queue.put("c", "c0", 100)
    assert _serve(queue, 3) == ["a2", "b0", "c0"]  # a 300, b 700, c 300; b and c are gone
    queue.put("b", "b1", 1)
    queue.put("c", "c1", 100)
    assert _serve(queue, 3) == ["a3", "c1", "b1"]


def test_what_was_taken_and_waits_again_is_the_first_of_its_tenant_and_not_charged_twice() -> None:
    queue: FairQueue[str] = FairQueue(1)
    queue.put("a", "a0", 100)
    assert queue.take() == "a0"
    queue.put("a", "a1", 100)
    queue.put_back("a", "a0")
    assert list(queue) == ["a0", "a1"]
    assert len(queue) == 2
    with pytest.raises(Overloaded):
        queue.put("a", "a2", 100)
    assert queue.take() == "a0"
    queue.remove("a", "a1")
    queue.put("b", "b0", 150)  # starts at a's 100, of which a0's second turn is no part
    queue.put_back("a", "a0")
    assert queue.first() == "a0"
    assert _serve(queue, 2) == ["a0", "b0"]
    assert len(queue) == 0


def test_a_full_queue_takes_from_who_has_most_for_who_has_less() -> None:
    queue: FairQueue[str] = FairQueue(4)
    for number in range(4):
        assert queue.put("a", f"a{number}", 10) is None
    with pytest.raises(Overloaded):
        queue.put("a", "a4", 10)
    assert queue.put("b", "b0", 10) == "a3"  # the newest of a's
    assert queue.put("b", "b1", 10) == "a2"
    with pytest.raises(Overloaded):
        queue.put("b", "b2", 10)  # it has its half
    assert queue.put("c", "c0", 10) in ("a1", "b1")
    with pytest.raises(Overloaded):
        queue.put("c", "c1", 10)
    assert len(queue) == 4


def test_a_queue_of_one_does_not_change_hands() -> None:
    queue: FairQueue[str] = FairQueue(1)
    queue.put("a", "a0", 10)
    with pytest.raises(Overloaded):
        queue.put("b", "b0", 10)
    assert list(queue) == ["a0"]


@pytest.mark.parametrize(
    ("wanted", "budget", "shares"),
    [
        ({}, 96, {}),
        ({"a": 8000}, 96, {"a": 96}),
        ({"a": 8000, "b": 20}, 96, {"a": 76, "b": 20}),
        ({"a": 8000, "b": 8000, "c": 10}, 100, {"a": 45, "b": 45, "c": 10}),
        ({"a": 5, "b": 7}, 96, {"a": 5, "b": 7}),
        ({"a": 3, "b": 3, "c": 3}, 2, {"a": 0, "b": 1, "c": 1}),
    ],
)
def test_a_step_is_shared_so_that_nobody_gets_more_by_wanting_more(
    wanted: dict[str, int], budget: int, shares: dict[str, int]
) -> None:
    assert fair_shares(wanted, budget) == shares


@pytest.mark.parametrize(
    ("wanted", "budget", "shares"),
    [
        ([100], 30, [30]),
        ([100, 10], 30, [20, 10]),  # the short one is done at once
        ([100, 40], 30, [15, 15]),  # half is the oldest one's
        ([10, 100, 20], 31, [10, 1, 20]),
        ([40, 40, 40], 30, [30, 0, 0]),  # texts alike: one after the other
        ([5, 5], 30, [5, 5]),
    ],
)
def test_a_tenants_own_texts_share_what_it_has(
    wanted: list[int], budget: int, shares: list[int]
) -> None:
    assert divided(wanted, budget) == shares
