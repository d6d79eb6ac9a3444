"""A batch's tasks carried out: its lines asked, some at a time, and their answers kept in groups.

A batch runs for a slice of time while others wait, then stands in line behind them, so that a long
one keeps no other from starting. What an answer is, the endpoint that it is asked of knows.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tunery.datasets.batch_requests import Question, questions
from tunery.domain.batches import (
    Answer,
    AnsweredLine,
    BatchProblem,
    BatchStatus,
    Reply,
    answered,
    request_id,
)
from tunery.domain.errors import Overloaded, StorageFull, TuneryError, Unavailable
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.domain.tenants import Caller
from tunery.services import batch_files, batch_runs
from tunery.storage.database import Database
from tunery.telemetry import Logger
from tunery.worker.lease import Lease
from tunery.worker.portal import Portal

TASKS = (TaskKind.CHECK_BATCH, TaskKind.RUN_BATCH, TaskKind.END_BATCH)
_LOOK_S = 0.5  # answers are kept, and a cancellation is seen, within this time
_GROUP = 64  # or once there are so many answers
_GRACE_S = 2.0  # for answers in the making when a batch is to end
_SLICE_S = 30.0  # before another batch that waits has its turn
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0  # while the engine has no room, or is not there


@dataclass(frozen=True, slots=True)
class BatchWork:
    """Carries out the tasks of batches; `concurrency` answers are in the making at most."""

    database: Database
    blobs: BlobStore
    portal: Portal
    answer: Answer
    concurrency: int
    log: Logger
    slice_s: float = _SLICE_S

    def carry_out(self, task: Task, lease: Lease) -> None:
        """Carry out one of `TASKS`."""
        match task.kind:
            case TaskKind.CHECK_BATCH:
                batch_runs.check_batch(self.database, self.blobs, task)
            case TaskKind.RUN_BATCH:
                self.portal.call(lambda: _run(self, task, lease))
            case TaskKind.END_BATCH:
                batch_files.end_batch(self.database, self.blobs, task)

    def give_up(self, task: Task, problem: BatchProblem) -> None:
        """Fail the batch of a task that cannot be carried out."""
        batch_runs.give_up(self.database, task, problem)


def end_overdue(database: Database) -> Callable[[int], int]:
    """Return the sweeper's act that ends batches in time which no worker runs."""
    return lambda now: batch_runs.end_overdue(database, now)


async def _run(work: BatchWork, task: Task, lease: Lease) -> None:
    run = await asyncio.to_thread(batch_runs.begin_run, work.database, task)
    if run is not None:
        await _Runner(work, task, lease, run).run()


class _Runner:
    """One slice of a batch's run."""

    def __init__(self, work: BatchWork, task: Task, lease: Lease, run: batch_runs.BatchRun) -> None:
        self._work = work
        self._task = task
        self._lease = lease
        self._batch = run.batch
        self._questions = questions(work.blobs.stream(run.blob_key), run.answered)
        self._next: Question | None = None
        self._asked: dict[asyncio.Task[AnsweredLine], int] = {}  # and the answers each asks for
        self._answers: list[AnsweredLine] = []
        self._began = self._kept = time.monotonic()

    async def run(self) -> None:
        """Ask until every line is answered, the batch is to end, or another's turn has come."""
        try:
            others_turn = await self._ask_all()
            await self._keep()
        except LeaseLost:
            raise
        except BaseException:
            await self._keep_what_can_be()
            raise
        finally:
            await self._break_off()
        after = batch_runs.stand_in_line if others_turn else batch_runs.finish_run
        await asyncio.to_thread(after, self._work.database, self._task)

    async def _ask_all(self) -> bool:
        """Ask line after line; return whether lines are left, to be asked after other batches."""
        self._next = await self._read()
        while not await self._is_to_end():
            others_turn = await self._is_others_turn()
            while not others_turn and self._next is not None and self._has_room(self._next):
                self._ask(self._next)
                self._next = await self._read()
            if not self._asked:
                return others_turn and self._next is not None
            await self._take(_LOOK_S, asyncio.FIRST_COMPLETED)
        await self._take(_GRACE_S, asyncio.ALL_COMPLETED)
        return False

    async def _is_to_end(self) -> bool:
        """Keep what is there to keep, now and then, and look whether the batch may go on."""
        self._lease.check()
        if len(self._answers) >= _GROUP or time.monotonic() - self._kept >= _LOOK_S:
            try:
                await self._keep()
            except (Unavailable, StorageFull) as error:  # as long as the lease lasts
                self._work.log.warning("answers not kept yet", error=error.message)
        batch = self._batch
        return batch.status is not BatchStatus.IN_PROGRESS or time.time() >= batch.expires_at

    async def _is_others_turn(self) -> bool:
        if time.monotonic() - self._began < self._work.slice_s:
            return False
        return await asyncio.to_thread(batch_runs.others_wait, self._work.database)

    async def _keep(self) -> None:
        """Make the answers so far durable, in one transaction, and hear how the batch stands."""
        answers, self._answers = self._answers, []
        self._kept = time.monotonic()
        try:
            self._batch = await asyncio.to_thread(
                batch_runs.keep_answers, self._work.database, self._task, answers
            )
        except TuneryError:
            self._answers = answers + self._answers
            raise

    async def _keep_what_can_be(self) -> None:
        try:
            await self._keep()
        except (TuneryError, LeaseLost) as error:  # those lines will be asked again
            self._work.log.warning("answers not kept", batch=self._batch.id, error=str(error))

    # ---- lines

    async def _read(self) -> Question | None:
        return await asyncio.to_thread(next, self._questions, None)

    def _has_room(self, question: Question) -> bool:
        taken = sum(self._asked.values())
        return not taken or taken + _width(question.body) <= self._work.concurrency

    def _ask(self, question: Question) -> None:
        asked = asyncio.ensure_future(self._answer(question))
        self._asked[asked] = _width(question.body)

    async def _take(self, wait_s: float, until: Any) -> None:
        """Wait for answers; raise what kept one from being had at all."""
        if not self._asked:
            return
        done, _ = await asyncio.wait(self._asked, timeout=wait_s, return_when=until)
        for one in done:
            del self._asked[one]
            self._answers.append(one.result())

    async def _break_off(self) -> None:
        """Cancel what is in the making: nothing of it is charged."""
        for one in self._asked:
            one.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)

    async def _answer(self, question: Question) -> AnsweredLine:
        batch = self._batch
        caller = Caller(
            self._task.tenant, batch.key_id, request_id(batch.id, question.line), batch=True
        )
        reply = await self._reply(caller, question.body)
        return answered(batch.id, question.line, question.custom_id, reply)

    async def _reply(self, caller: Caller, body: dict[str, Any]) -> Reply:
        for pause_s in _pauses():
            try:
                return await self._work.answer(self._batch.endpoint, caller, body)
            except (Overloaded, Unavailable, StorageFull) as error:
                self._work.log.debug("batch waits", batch=self._batch.id, error=error.message)
            await asyncio.sleep(pause_s)
        raise AssertionError("unreachable")


def _pauses() -> Iterator[float]:
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _width(body: dict[str, Any]) -> int:
    """Return how many answers a request asks for: each takes one of the engine's rows."""
    asked = [body.get(name) for name in ("n", "best_of")]
    of_each = max([1, *(count for count in asked if type(count) is int)])
    prompts = body.get("prompt")
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        of_each *= len(prompts)
    return of_each
