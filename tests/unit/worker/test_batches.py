"""A batch's run: bounded, patient, interruptible, and each answer kept once."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from support.databases import opened
from support.rows import OURS, THEIRS, a_batch, a_file, batch_line, batch_lines, wait_for
from tunery.domain.batches import Answer, Batch, BatchStatus, Reply, request_id
from tunery.domain.errors import Overloaded, StorageFull, Unavailable
from tunery.domain.files import FilePurpose
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.domain.tenants import Caller
from tunery.services import batch_runs, batches
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.tables import batches as batch_rows
from tunery.storage.tables import tasks
from tunery.telemetry import logger
from tunery.worker import batches as worker_batches
from tunery.worker.batches import BatchWork, end_overdue
from tunery.worker.lease import Lease, Stopping
from tunery.worker.portal import Portal

LINES = 30


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    with opened(sqlite_url) as database:
        yield database


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


@pytest.fixture
def work(database: Database, blobs: LocalBlobStore, portal: Portal) -> Callable[..., BatchWork]:
    def make(answer: Answer, concurrency: int = 4, slice_s: float = 60) -> BatchWork:
        return BatchWork(database, blobs, portal, answer, concurrency, logger(), slice_s)

    return make


class Endpoint:
    """Answers at once, and notes what it was asked; `before` may wait or raise."""

    def __init__(self, before: Callable[[int], Any] | None = None) -> None:
        self.asked: list[int] = []
        self.callers: list[Caller] = []
        self.together = self.most_together = 0
        self._before = before

    async def __call__(self, url: str, caller: Caller, body: Any) -> Reply:
        assert url == "/v1/chat/completions"
        number = body["number"]
        self.asked.append(number)
        self.callers.append(caller)
        self.together += body.get("n", 1)
        self.most_together = max(self.together, self.most_together)
        try:
            await asyncio.sleep(0)
            if self._before is not None:
                await self._before(number)
        finally:
            self.together -= body.get("n", 1)
        return Reply(400 if number % 10 == 0 else 200, {"number": number}, 2, 3)


def add(database: Database, blobs: LocalBlobStore, data: bytes, **changes: Any) -> Task:
    """Store a batch that is in progress and return its task, claimed."""
    blobs.put(a_file().blob_key, data)
    status, total = BatchStatus.IN_PROGRESS, data.count(b"\n")
    with database.write() as tx:
        tx.files(OURS).add(a_file(purpose=FilePurpose.BATCH))
        tx.batches(OURS).add(a_batch(**{"status": status, "total": total, **changes}))
        tx.queue.add(OURS, TaskKind.RUN_BATCH, "batch_1")
    return claim(database)


def claim(database: Database) -> Task:
    with database.write() as tx:
        task = tx.queue.claim([TaskKind.RUN_BATCH], 60)
    assert task is not None
    return task


def run(work: BatchWork, task: Task, stopping: threading.Event | None = None) -> None:
    with Lease(work.database, task, 60, stopping or threading.Event()) as lease:
        work.carry_out(task, lease)


def batch_of(database: Database) -> Batch:
    return batches.get_batch(database, OURS, "batch_1")


def answered(database: Database) -> set[int]:
    with database.read() as tx:
        return tx.batches(OURS).answered_lines("batch_1")


def queued(database: Database) -> list[tuple[str, str, str]]:
    with database.read() as tx:
        rows = tx._connection.execute(tasks.select().order_by(tasks.c.id)).all()
    return [(row.subject, row.kind, row.state) for row in rows]


ENDS = [("batch_1", "end_batch", "queued")]


def test_every_line_is_asked_once_as_the_batchs_own_key(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    endpoint = Endpoint()
    run(work(endpoint), add(database, blobs, batch_lines(LINES)))
    assert sorted(endpoint.asked) == list(range(1, LINES + 1))
    batch = batch_of(database)
    assert (batch.status, batch.completed, batch.failed) == (BatchStatus.FINALIZING, 27, 3)
    assert (batch.input_tokens, batch.output_tokens) == (2 * LINES, 3 * LINES)
    assert answered(database) == set(range(1, LINES + 1))
    assert queued(database) == ENDS
    assert sorted(caller.request_id for caller in endpoint.callers) == sorted(
        request_id("batch_1", line) for line in range(1, LINES + 1)
    )
    assert {(c.tenant, c.key_id, c.batch) for c in endpoint.callers} == {(OURS, "key_1", True)}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_so_many_are_asked_together_and_not_one_more(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork], concurrency: int
) -> None:
    endpoint = Endpoint(lambda _: asyncio.sleep(0.01))
    run(work(endpoint, concurrency), add(database, blobs, batch_lines(LINES)))
    assert endpoint.most_together == concurrency
    assert len(endpoint.asked) == LINES


def test_a_request_for_several_answers_takes_as_many_places(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    data = b"".join(
        batch_line(n, body={"model": "m", "number": n, "n": width})
        for n, width in enumerate((2, 3, 1, 9, 1, 1), 1)
    )
    endpoint = Endpoint(lambda _: asyncio.sleep(0.01))
    run(work(endpoint, 4), add(database, blobs, data))
    assert sorted(endpoint.asked) == [1, 2, 3, 4, 5, 6]
    assert endpoint.most_together == 9  # one that is wider than all places, alone


@pytest.mark.parametrize(
    ("body", "width"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": True}, 1),
        ({"n": -1}, 1),
        ({"n": "9"}, 1),
        ({"n": 2, "best_of": 5}, 5),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": []}, 1),
    ],
)
def test_the_width_of_a_request(body: dict[str, Any], width: int) -> None:
    assert worker_batches._width(body) == width


@pytest.mark.parametrize(
    "error", [Overloaded("full"), Unavailable("starting"), StorageFull("full")]
)
def test_a_line_that_cannot_be_answered_now_is_asked_again_and_has_not_failed(
    database: Database,
    blobs: LocalBlobStore,
    work: Callable[..., BatchWork],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    monkeypatch.setattr(worker_batches, "_FIRST_PAUSE_S", 0.001)
    refused: list[int] = []

    async def refuse(number: int) -> None:
        if refused.count(number) < 5:
            refused.append(number)
            raise error

    run(work(Endpoint(refuse)), add(database, blobs, batch_lines(5)))
    batch = batch_of(database)
    assert (batch.status, batch.completed, batch.failed) == (BatchStatus.FINALIZING, 5, 0)
    assert len(refused) == 25


def test_pauses_grow_to_a_limit() -> None:
    pauses = worker_batches._pauses()
    assert [next(pauses) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_answers_are_kept_while_the_batch_runs_and_not_asked_again(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    stopping = threading.Event()

    async def hang(number: int) -> None:
        if number > 20:
            await asyncio.Event().wait()

    def stop() -> None:
        wait_for(lambda: batch_of(database).completed == 18, "the answers so far")
        stopping.set()

    task = add(database, blobs, batch_lines(LINES))
    stopper = threading.Thread(target=stop)
    stopper.start()
    first = Endpoint(hang)
    with pytest.raises(Stopping):
        run(work(first), task, stopping)
    stopper.join()
    assert answered(database) == set(range(1, 21))
    assert first.together == 0  # what was in the making is broken off
    second = Endpoint()
    run(work(second), task)
    assert sorted(second.asked) == list(range(21, LINES + 1))
    assert batch_of(database).status is BatchStatus.FINALIZING


def test_a_cancelled_batch_stops_within_seconds_and_keeps_what_it_has(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    cancelled = threading.Event()

    async def hang_at_the_end(number: int) -> None:
        if number == 8:
            await asyncio.to_thread(batches.cancel_batch, database, OURS, "batch_1")
            cancelled.set()
        if number > 4:
            await asyncio.sleep(3600)

    endpoint = Endpoint(hang_at_the_end)
    run(work(endpoint), add(database, blobs, batch_lines(LINES)))
    assert cancelled.is_set()
    assert sorted(endpoint.asked) == list(range(1, 9))
    assert answered(database) == {1, 2, 3, 4}
    assert endpoint.together == 0
    assert batch_of(database).status is BatchStatus.CANCELLING
    assert queued(database) == ENDS


def test_answers_that_come_shortly_after_the_cancellation_are_kept(
    database: Database,
    blobs: LocalBlobStore,
    work: Callable[..., BatchWork],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep, seen = batch_runs.keep_answers, threading.Event()

    def keep_and_see(*arguments: Any) -> Batch:
        batch = keep(*arguments)
        if batch.status is BatchStatus.CANCELLING:
            seen.set()
        return batch

    async def wait_until_it_is_seen(number: int) -> None:
        if number == 1:
            await asyncio.to_thread(batches.cancel_batch, database, OURS, "batch_1")
        await asyncio.to_thread(seen.wait)

    monkeypatch.setattr(batch_runs, "keep_answers", keep_and_see)
    endpoint = Endpoint(wait_until_it_is_seen)
    run(work(endpoint), add(database, blobs, batch_lines(LINES)))
    assert sorted(endpoint.asked) == [1, 2, 3, 4]
    assert answered(database) == {1, 2, 3, 4}
    assert queued(database) == ENDS


def test_a_batch_out_of_time_stops(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    def let_time_pass() -> None:
        with database.write() as tx:
            tx._connection.execute(batch_rows.update().values(expires_at=1))

    async def hang_at_the_end(number: int) -> None:
        if number == 8:
            await asyncio.to_thread(let_time_pass)
        if number > 4:
            await asyncio.sleep(3600)

    run(work(Endpoint(hang_at_the_end)), add(database, blobs, batch_lines(LINES)))
    assert answered(database) == {1, 2, 3, 4}
    assert batch_of(database).status is BatchStatus.IN_PROGRESS  # its end says that it expired
    assert queued(database) == ENDS


def test_a_batch_that_is_out_of_time_already_asks_nothing(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    endpoint = Endpoint()
    run(work(endpoint), add(database, blobs, batch_lines(LINES), expires_at=1))
    assert endpoint.asked == []
    assert queued(database) == ENDS


def test_a_long_batch_lets_another_go_first_when_its_time_is_over(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    task = add(database, blobs, batch_lines(LINES))
    first = Endpoint()
    with database.write() as tx:
        tx.queue.add(THEIRS, TaskKind.RUN_BATCH, "batch_2")
    run(work(first, slice_s=0), task)
    assert first.asked == []
    assert queued(database) == [
        ("batch_2", "run_batch", "queued"),
        ("batch_1", "run_batch", "queued"),
    ]
    assert claim(database).subject == "batch_2"
    second = Endpoint()
    run(work(second, slice_s=0), claim(database))  # nobody waits: it goes on
    assert len(second.asked) == LINES
    assert batch_of(database).status is BatchStatus.FINALIZING


def test_a_batch_in_mid_run_gives_way_with_its_answers_kept(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    def another_comes() -> None:
        with database.write() as tx:
            tx.queue.add(THEIRS, TaskKind.RUN_BATCH, "batch_2")

    there = asyncio.Event()

    async def come(number: int) -> None:
        if number == 6:
            await asyncio.to_thread(another_comes)
            there.set()
        elif number > 6:
            await there.wait()

    endpoint = Endpoint(come)
    run(work(endpoint, slice_s=0), add(database, blobs, batch_lines(LINES)))
    assert 6 <= len(endpoint.asked) < LINES
    assert answered(database) == set(endpoint.asked)
    assert [row[0] for row in queued(database)] == ["batch_2", "batch_1"]


def test_a_runner_that_has_lost_its_batch_keeps_nothing_more(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    def another_takes_it() -> None:
        with database.write() as tx:
            tx._connection.execute(sa.update(tasks).values(lease_until=0))
        claim(database)

    async def lose(number: int) -> None:
        if number == 3:
            await asyncio.to_thread(another_takes_it)

    endpoint = Endpoint(lose)
    task = add(database, blobs, batch_lines(LINES))
    with pytest.raises(LeaseLost):
        run(work(endpoint), task)
    assert answered(database) == set()
    assert endpoint.together == 0
    assert queued(database) == [("batch_1", "run_batch", "running")]


def test_a_database_that_does_not_answer_for_a_moment_costs_nothing(
    database: Database,
    blobs: LocalBlobStore,
    work: Callable[..., BatchWork],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_batches, "_GROUP", 1)
    keep, failures = batch_runs.keep_answers, iter([True, False, True, True])

    def fail_at_times(*arguments: Any) -> Batch:
        if next(failures, False):
            raise Unavailable("The database is busy.")
        return keep(*arguments)

    monkeypatch.setattr(batch_runs, "keep_answers", fail_at_times)
    endpoint = Endpoint()
    run(work(endpoint), add(database, blobs, batch_lines(LINES)))
    assert len(endpoint.asked) == LINES
    assert answered(database) == set(range(1, LINES + 1))


def test_a_bug_in_the_run_ends_it_with_the_answers_kept(
    database: Database, blobs: LocalBlobStore, work: Callable[..., BatchWork]
) -> None:
    async def break_down(number: int) -> None:
        if number == 9:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(work(Endpoint(break_down), 1), add(database, blobs, batch_lines(LINES)))
    assert answered(database) == set(range(1, 9))


def test_the_sweeper_ends_what_nobody_runs(database: Database, blobs: LocalBlobStore) -> None:
    task = add(database, blobs, batch_lines(1), expires_at=9)
    with database.write() as tx:
        tx.queue.put_back(task, 3600)
    act = end_overdue(database)
    assert (act(8), act(9), act(10)) == (0, 1, 0)
    assert queued(database) == ENDS
