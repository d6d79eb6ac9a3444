"""The process that checks a file for the API: fed through a pipe, bounded, and ended."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.preparing import chats, json_lines
from tunery.datasets.preparing.check_order import CheckedBase, CheckOrder
from tunery.datasets.preparing.check_process import FileChecker
from tunery.domain.errors import InvalidRequest, Overloaded


def test_two_files_and_a_base_go_through_the_pipe(tiny_model: Path) -> None:
    training = json_lines([*chats(12), {"messages": []}])
    validation = json_lines(chats(2))
    base = CheckedBase("tiny", str(tiny_model), 512)
    order = CheckOrder(len(training), len(validation), base)
    # Chunks end where they end, also in the middle of a line and of a file.
    data = training + validation
    chunks = (data[n : n + 100] for n in range(0, len(data), 100))
    report = FileChecker().check("p", order, chunks)
    assert [(one["lines"], one["fit"]) for one in report["files"]] == [(13, 12), (2, 2)]
    found = {one["kind"]: one for one in report["findings"]}
    assert found["missing_messages_list"]["places"] == [
        {"file": "training", "line": 13, "detail": "'messages' needs to be a list of at least"
         " one message"}
    ]  # fmt: skip
    assert found["leaked_lines"]["count"] == 2
    assert report["written"][0]["tokens"] > 0


def test_files_are_checked_two_at_a_time_and_one_of_an_owner() -> None:
    checker = FileChecker(at_once=2)
    data = json_lines(chats(10))
    order = CheckOrder(len(data))
    waits, begun = threading.Event(), threading.Semaphore(0)
    done: list[int] = []

    def slow() -> Iterator[bytes]:
        begun.release()
        waits.wait(60)
        yield data

    def check(owner: str) -> None:
        done.append(checker.check(owner, order, slow())["files"][0]["fit"])

    threads = [threading.Thread(target=check, args=(owner,)) for owner in ("a", "b")]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=60)
    for owner in ("a", "c"):
        with pytest.raises(Overloaded):
            checker.check(owner, order, [data])
    waits.set()
    for thread in threads:
        thread.join()
    assert done == [10, 10]
    assert checker.check("a", order, [data])["files"][0]["fit"] == 10


def test_a_check_that_takes_too_long_is_ended_and_says_so() -> None:
    checker = FileChecker(check_s=0.2)
    order = CheckOrder(100)
    ended = threading.Event()

    def never() -> Iterator[bytes]:
        yield b"{"
        ended.wait(1.0)
        yield b"}"

    with pytest.raises(InvalidRequest, match="leave out 'model'") as caught:
        checker.check("a", order, never())
    assert caught.value.code == "check_timed_out"
