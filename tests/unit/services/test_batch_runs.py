"""A batch on its way: checked, run, handed on, and never by a worker that has lost it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from support.rows import OURS, THEIRS, a_batch, a_file, batch_line, batch_lines
from tunery.domain.batches import AnsweredLine, Batch, BatchProblem, BatchStatus
from tunery.domain.files import FilePurpose
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.services import batch_runs, batches
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.tables import tasks

ALL_TASKS = (TaskKind.CHECK_BATCH, TaskKind.RUN_BATCH, TaskKind.END_BATCH)


def claim(database: Database) -> Task:
    with database.write() as tx:
        task = tx.queue.claim(ALL_TASKS, 60)
    assert task is not None
    return task


def queued(database: Database) -> list[tuple[str, str]]:
    with database.read() as tx:
        rows = tx._connection.execute(tasks.select().order_by(tasks.c.id)).all()
    return [(row.kind, row.state) for row in rows]


def add(database: Database, kind: TaskKind, *, with_file: bool = True, **changes: Any) -> Task:
    """Store a batch with its file and return its task, claimed."""
    with database.write() as tx:
        if with_file:
            tx.files(OURS).add(a_file(purpose=FilePurpose.BATCH))
        tx.batches(OURS).add(a_batch(**changes))
        tx.queue.add(OURS, kind, "batch_1")
    return claim(database)


def running(database: Database, total: int = 3, **changes: Any) -> Task:
    status = BatchStatus.IN_PROGRESS
    return add(database, TaskKind.RUN_BATCH, status=status, total=total, **changes)


def batch_of(database: Database) -> Batch:
    return batches.get_batch(database, OURS, "batch_1")


def answers(*lines: int) -> list[AnsweredLine]:
    return [AnsweredLine(line, line != 2, {"line": line}, 5, 7) for line in lines]


# ---- checked


def test_a_good_file_has_its_batch_run(database: Database, blobs: LocalBlobStore) -> None:
    blobs.put(a_file().blob_key, batch_lines(3))
    batch_runs.check_batch(database, blobs, add(database, TaskKind.CHECK_BATCH))
    batch = batch_of(database)
    assert (batch.status, batch.total, batch.model) == (BatchStatus.IN_PROGRESS, 3, "gpt-tiny")
    assert batch.in_progress_at is not None
    assert queued(database) == [("run_batch", "queued")]


def test_a_bad_file_fails_its_batch_with_its_lines(
    database: Database, blobs: LocalBlobStore
) -> None:
    blobs.put(a_file().blob_key, batch_line(1) + b"{\n" + batch_line(1))
    batch_runs.check_batch(database, blobs, add(database, TaskKind.CHECK_BATCH))
    batch = batch_of(database)
    assert (batch.status, batch.total) == (BatchStatus.FAILED, 0)
    assert batch.failed_at is not None
    assert [(p.line, p.code) for p in batch.errors] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
    ]
    assert queued(database) == []


def test_a_file_that_is_gone_fails_its_batch(database: Database, blobs: LocalBlobStore) -> None:
    batch_runs.check_batch(database, blobs, add(database, TaskKind.CHECK_BATCH, with_file=False))
    batch = batch_of(database)
    assert batch.status is BatchStatus.FAILED
    assert [problem.code for problem in batch.errors] == ["input_file_not_found"]


def test_a_batch_cancelled_while_it_is_checked_is_ended(
    database: Database, blobs: LocalBlobStore
) -> None:
    blobs.put(a_file().blob_key, batch_lines(3))
    task = add(database, TaskKind.CHECK_BATCH)
    batches.cancel_batch(database, OURS, "batch_1")
    batch_runs.check_batch(database, blobs, task)
    assert batch_of(database).status is BatchStatus.CANCELLING
    assert queued(database) == [("end_batch", "queued")]


# ---- run


def test_a_run_is_taken_up_where_it_stands(database: Database) -> None:
    task = running(database)
    begun = batch_runs.begin_run(database, task)
    assert begun is not None
    assert (begun.blob_key, begun.answered) == (a_file().blob_key, set())
    batch_runs.keep_answers(database, task, answers(1, 3))
    begun = batch_runs.begin_run(database, task)
    assert begun is not None
    assert begun.answered == {1, 3}
    assert (begun.batch.completed, begun.batch.failed) == (2, 0)
    assert (begun.batch.input_tokens, begun.batch.output_tokens) == (10, 14)


def test_a_cancelled_batch_is_not_run(database: Database) -> None:
    task = running(database)
    batches.cancel_batch(database, OURS, "batch_1")
    assert batch_runs.begin_run(database, task) is None
    assert queued(database) == [("end_batch", "queued")]


def test_a_run_without_its_file_is_to_fail(database: Database) -> None:
    task = running(database, with_file=False)
    assert batch_runs.begin_run(database, task) is None
    assert [problem.code for problem in batch_of(database).errors] == ["input_file_not_found"]
    assert queued(database) == [("end_batch", "queued")]


@pytest.mark.parametrize("kept", [[], answers(1)])
def test_keeping_answers_tells_of_a_cancellation(
    database: Database, kept: list[AnsweredLine]
) -> None:
    task = running(database)
    assert batch_runs.keep_answers(database, task, kept).status is BatchStatus.IN_PROGRESS
    batches.cancel_batch(database, OURS, "batch_1")
    assert batch_runs.keep_answers(database, task, []).status is BatchStatus.CANCELLING


def test_a_batch_with_every_line_answered_is_finalized(database: Database) -> None:
    task = running(database)
    batch_runs.keep_answers(database, task, answers(1, 2, 3))
    batch_runs.finish_run(database, task)
    batch = batch_of(database)
    assert (batch.status, batch.completed, batch.failed) == (BatchStatus.FINALIZING, 2, 1)
    assert batch.finalizing_at is not None
    assert queued(database) == [("end_batch", "queued")]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_batch_stopped_early_is_handed_on_as_it_stands(
    database: Database, cancelled: bool
) -> None:
    task = running(database)
    batch_runs.keep_answers(database, task, answers(1, 3))
    if cancelled:
        batches.cancel_batch(database, OURS, "batch_1")
    batch_runs.finish_run(database, task)
    expected = BatchStatus.CANCELLING if cancelled else BatchStatus.IN_PROGRESS
    assert batch_of(database).status is expected
    assert queued(database) == [("end_batch", "queued")]


def test_a_batch_stands_in_line_behind_the_others(database: Database) -> None:
    task = running(database)
    assert not batch_runs.others_wait(database)
    with database.write() as tx:
        tx.queue.add(THEIRS, TaskKind.RUN_BATCH, "batch_2")
    assert batch_runs.others_wait(database)
    batch_runs.stand_in_line(database, task)
    assert [claim(database).subject for _ in range(2)] == ["batch_2", "batch_1"]


ACTS: dict[str, Callable[[Database, LocalBlobStore, Task], object]] = {
    "check": batch_runs.check_batch,
    "begin": lambda db, blobs, task: batch_runs.begin_run(db, task),
    "keep": lambda db, blobs, task: batch_runs.keep_answers(db, task, answers(2)),
    "finish": lambda db, blobs, task: batch_runs.finish_run(db, task),
    "stand in line": lambda db, blobs, task: batch_runs.stand_in_line(db, task),
    "give up": lambda db, blobs, task: batch_runs.give_up(db, task, BatchProblem("c", "m")),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_worker_that_has_lost_its_task_changes_nothing(
    database: Database, blobs: LocalBlobStore, act: str
) -> None:
    blobs.put(a_file().blob_key, batch_lines(3))
    task = running(database)
    batch_runs.keep_answers(database, task, answers(1))
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(lease_until=0))
    assert claim(database).fence == task.fence + 1
    before = batch_of(database)
    with pytest.raises(LeaseLost):
        ACTS[act](database, blobs, task)
    assert batch_of(database) == before
    assert queued(database) == [("run_batch", "running")]
    with database.read() as tx:
        assert tx.batches(OURS).answered_lines("batch_1") == {1}


# ---- given up, out of time


@pytest.mark.parametrize(
    ("kind", "status", "after", "queue"),
    [
        (TaskKind.CHECK_BATCH, "validating", "failed", []),
        (TaskKind.RUN_BATCH, "in_progress", "in_progress", [("end_batch", "queued")]),
        (TaskKind.RUN_BATCH, "cancelling", "cancelling", [("end_batch", "queued")]),
        (TaskKind.END_BATCH, "finalizing", "failed", []),
        (TaskKind.END_BATCH, "in_progress", "failed", []),
        (TaskKind.END_BATCH, "cancelling", "cancelled", []),
        (TaskKind.END_BATCH, "completed", "completed", []),
    ],
)
def test_a_batch_that_is_given_up_says_why(
    database: Database, kind: TaskKind, status: str, after: str, queue: list[tuple[str, str]]
) -> None:
    task = add(database, kind, status=BatchStatus(status))
    problem = BatchProblem("server_error", "It broke.")
    batch_runs.give_up(database, task, problem)
    batch = batch_of(database)
    assert batch.status == after
    assert batch.errors == (() if status == "completed" else (problem,))
    assert queued(database) == queue


def test_batches_out_of_time_that_nobody_runs_are_ended(database: Database) -> None:
    now = int(time.time())
    late = {"expires_at": now, "status": BatchStatus.IN_PROGRESS}
    with database.write() as tx:
        for batch_id, changes in (
            ("batch_waits", late),
            ("batch_checked", {"expires_at": now}),
            ("batch_cancelled", {"status": BatchStatus.CANCELLING}),
            ("batch_in_time", {"expires_at": now + 1, "status": BatchStatus.IN_PROGRESS}),
            ("batch_runs", late),
        ):
            tx.batches(THEIRS).add(a_batch(batch_id, **changes))
            tx.queue.add(THEIRS, TaskKind.RUN_BATCH, batch_id)
        running_row = tasks.update().where(tasks.c.subject == "batch_runs")
        tx._connection.execute(running_row.values(state="running", lease_until=4e9))
    assert batch_runs.end_overdue(database, now) == 3
    assert batch_runs.end_overdue(database, now) == 0
    with database.read() as tx:
        rows = tx._connection.execute(tasks.select().order_by(tasks.c.subject)).all()
    assert [(row.subject, row.kind, row.project_id) for row in rows] == [
        ("batch_cancelled", "end_batch", THEIRS.project_id),
        ("batch_checked", "end_batch", THEIRS.project_id),
        ("batch_in_time", "run_batch", THEIRS.project_id),
        ("batch_runs", "run_batch", THEIRS.project_id),
        ("batch_waits", "end_batch", THEIRS.project_id),
    ]


def test_failures_are_counted_from_the_last_answers_on(database: Database) -> None:
    task = running(database)
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(failures=7))
    batch_runs.keep_answers(database, task, answers(1))
    with database.read() as tx:
        assert tx._connection.execute(sa.select(tasks.c.failures)).scalar_one() == 0
