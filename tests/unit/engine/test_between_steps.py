"""Calls to the scheduler's thread: their results, their errors, and whose turn it is."""

import asyncio
import threading
from pathlib import Path

import pytest

from support.networks import ask, drain, endless_tokenizer, make_scheduler, tokens
from tunery.engine.between_steps import between_steps
from tunery.engine.scheduler import Scheduler
from tunery.engine.server import start_thread


@pytest.fixture
def scheduler(tiny_model: Path) -> Scheduler:
    return make_scheduler(tiny_model, endless_tokenizer(tiny_model))


def test_results_and_errors_come_back_from_the_schedulers_thread(tiny_model: Path) -> None:
    tokenizer = endless_tokenizer(tiny_model)
    running = start_thread(lambda: make_scheduler(tiny_model, tokenizer))

    def where() -> str:
        return threading.current_thread().name

    def fails() -> str:
        raise KeyError("lost")

    async def work() -> None:
        for call in (running.call, running.call_in_turn):
            assert await between_steps(call, where) == "scheduler"
            with pytest.raises(KeyError, match="lost"):
                await between_steps(call, fails)
        assert await asyncio.gather(
            *(between_steps(running.call_in_turn, lambda n=n: n) for n in range(20))  # type: ignore[misc]
        ) == list(range(20))

    asyncio.run(work())
    running.stop()


def test_a_caller_that_left_harms_nobody(tiny_model: Path) -> None:
    tokenizer = endless_tokenizer(tiny_model)
    running = start_thread(lambda: make_scheduler(tiny_model, tokenizer))

    async def work() -> None:
        hold = threading.Event()

        def block() -> None:
            assert hold.wait(20)

        running.call(block)
        left = asyncio.create_task(between_steps(running.call_in_turn, lambda: 1))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        hold.set()
        assert await between_steps(running.call_in_turn, lambda: 2) == 2

    asyncio.run(work())
    running.stop()


def test_work_takes_turns_with_the_steps_of_an_answer(
    scheduler: Scheduler, tiny_model: Path
) -> None:
    answer = ask(scheduler, endless_tokenizer(tiny_model), tokens(3, 1), 12)
    seen: list[int] = []
    for _ in range(5):  # all of them wait before the first step
        scheduler.call_in_turn(lambda: seen.append(len(answer.made)))
    scheduler.call_in_turn(scheduler.stop)
    scheduler.run()
    assert seen == [0, 1, 2, 3, 4]
    drain(scheduler)
    assert len(answer.made) == 12


def test_work_is_done_where_no_answer_is_made(scheduler: Scheduler) -> None:
    seen: list[int] = []
    for number in range(3):
        scheduler.call_in_turn(lambda number=number: seen.append(number))  # type: ignore[misc]
    scheduler.call_in_turn(scheduler.stop)
    scheduler.run()
    assert seen == [0, 1, 2]
