"""Grammars are tried out where they can do no harm: in a process that can be killed."""

import json
import threading
from contextlib import suppress

import pytest

from tunery.datasets.grammars import (
    MAX_GRAMMAR_BYTES,
    GrammarChecker,
    flaw_of,
)
from tunery.domain.errors import Overloaded

# Two hundred regular expressions that hold at once: their product is compiled for minutes.
PATTERNS = [{"type": "string", "pattern": f"a{{{n},}}b.*"} for n in range(200)]
SLOW = f"start: %json {json.dumps({'allOf': PATTERNS})}"


@pytest.mark.parametrize("grammar", ['start: "a" | "b"', "start: %json {}", 'start: "é"* "a"'])
def test_what_an_answer_can_follow_is_taken(grammar: str) -> None:
    assert flaw_of(grammar) is None


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ("", "Empty grammar"),
        ("start: nothing", "nothing"),
        ('start: %json {"$ref": "#"}', "no answer can follow it"),
        ('start: %json {"type": "string", "pattern": "(?=a)b"}', "look-around"),
        ("start: " + "(" * 100_000, ""),
        ("a" * (MAX_GRAMMAR_BYTES + 1), "larger than 524288 bytes"),
    ],
)
def test_what_none_can_follow_is_refused_in_one_line(grammar: str, says: str) -> None:
    flaw = flaw_of(grammar)
    assert flaw is not None
    assert says in flaw
    assert "\n" not in flaw
    assert len(flaw) < 400


def test_what_takes_too_long_is_given_up_and_not_tried_again() -> None:
    checker = GrammarChecker(check_s=1.0)
    try:
        assert checker.flaw_of(b"start: 'a'") is not None  # the child is there
        first = checker.child_pid
        assert checker.flaw_of(SLOW.encode()) == "it takes too much time or memory to compile"
        assert checker.child_pid is None
        assert checker.flaw_of(b'start: "a"') is None  # by another child
        second = checker.child_pid
        assert checker.flaw_of(SLOW.encode()) == "it takes too much time or memory to compile"
        assert checker.child_pid == second != first
    finally:
        checker.close()


def test_only_so_many_wait() -> None:
    checker = GrammarChecker(check_s=3.0, most_waiting=1)
    assert checker.flaw_of(b'start: "a"') is None
    done = threading.Event()

    def hold() -> None:
        while not done.is_set():
            with suppress(Overloaded):  # where the other thread is at it: once more
                checker.flaw_of(SLOW.encode())
                done.set()

    def is_refused() -> bool:
        try:
            checker.flaw_of(b'start: "a"')
        except Overloaded:
            return True
        return False

    busy = threading.Thread(target=hold)
    busy.start()
    try:
        refused = False
        while not done.wait(0.01) and not refused:
            refused = is_refused()
        assert refused
    finally:
        busy.join()
        checker.close()
