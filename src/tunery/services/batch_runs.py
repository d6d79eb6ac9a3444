"""A batch on its way: its lines checked, its answers kept, and handed on to have its files written.

Who asks the lines, and how many at a time, is the worker's business. Every act proves in its own
transaction that the task is still the worker's, so an answer is kept once.
"""

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass

from tunery.datasets.batch_requests import BatchCheck, check_batch_file
from tunery.domain.batches import (
    TERMINAL,
    AnsweredLine,
    Batch,
    BatchEvent,
    BatchProblem,
    BatchStatus,
)
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tasks import Task, TaskKind
from tunery.services.batches import WAITING_TASKS, end, find_batch
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class BatchRun:
    """What a runner needs: the batch, its file's bytes, and the lines that need not be asked."""

    batch: Batch
    blob_key: str
    answered: Set[int]


def check_batch(database: Database, blobs: BlobStore, task: Task) -> None:
    """Check every line of the input file; the batch is then run, or fails with its bad lines."""
    with database.read() as tx:
        batch = find_batch(tx, task.tenant, task.subject)
        file = tx.files(task.tenant).get(batch.input_file_id)
    if file is None:
        check = BatchCheck(0, None, (_gone(batch),))
    else:
        check = check_batch_file(blobs.stream(file.blob_key), batch.endpoint)
    with database.write() as tx:
        tx.queue.finish(task)
        batch = find_batch(tx, task.tenant, task.subject, lock=True)
        if batch.status is not BatchStatus.VALIDATING:  # cancelled meanwhile
            _end_later(tx, task, batch)
        elif check.problems:
            tx.batches(task.tenant).set_errors(batch.id, check.problems)
            end(tx, task.tenant, batch, BatchEvent.FAILED)
        else:
            tx.batches(task.tenant).advance(
                batch,
                BatchEvent.ACCEPTED,
                int(time.time()),
                total=check.total,
                model=check.model,
            )
            tx.queue.add(task.tenant, TaskKind.RUN_BATCH, batch.id)


def begin_run(database: Database, task: Task) -> BatchRun | None:
    """Take up a batch where it stands, or hand it on and return None where it is to end."""
    with database.write() as tx:
        tx.queue.hold(task)
        batch = find_batch(tx, task.tenant, task.subject, lock=True)
        file = tx.files(task.tenant).get(batch.input_file_id)
        if file is None and batch.status is BatchStatus.IN_PROGRESS:
            tx.batches(task.tenant).set_errors(batch.id, [_gone(batch)])
        if file is None or batch.status is not BatchStatus.IN_PROGRESS:
            tx.queue.finish(task)
            _end_later(tx, task, batch)
            return None
        return BatchRun(batch, file.blob_key, tx.batches(task.tenant).answered_lines(batch.id))


def keep_answers(database: Database, task: Task, answers: Sequence[AnsweredLine]) -> Batch:
    """Make answers part of the batch; return it as it stands, which tells of a cancellation."""
    if not answers:
        with database.read() as tx:
            return find_batch(tx, task.tenant, task.subject)
    with database.write() as tx:
        tx.queue.hold(task)
        tx.queue.forgive(task)  # kills and outages over a whole day are no reason to give it up
        tx.batches(task.tenant).add_answers(task.subject, answers)
        return find_batch(tx, task.tenant, task.subject)


def others_wait(database: Database) -> bool:
    """Return whether another batch waits for a runner."""
    with database.read() as tx:
        return tx.queue.has_free([TaskKind.RUN_BATCH])


def stand_in_line(database: Database, task: Task) -> None:
    """Put a batch behind the others that wait; it goes on from there."""
    with database.write() as tx:
        tx.queue.finish(task)
        tx.queue.add(task.tenant, TaskKind.RUN_BATCH, task.subject)


def finish_run(database: Database, task: Task) -> None:
    """Hand a batch on to have its files written: answered whole, cancelled, or out of time."""
    with database.write() as tx:
        tx.queue.finish(task)
        batch = find_batch(tx, task.tenant, task.subject, lock=True)
        if (
            batch.status is BatchStatus.IN_PROGRESS
            and batch.completed + batch.failed == batch.total
        ):
            tx.batches(task.tenant).advance(batch, BatchEvent.ANSWERED, int(time.time()))
        _end_later(tx, task, batch)


def give_up(database: Database, task: Task, problem: BatchProblem) -> None:
    """Fail the batch of a task that cannot be carried out; answers are delivered if they can be."""
    with database.write() as tx:
        tx.queue.finish(task)
        batch = tx.batches(task.tenant).get(task.subject, lock=True)
        if batch is None or batch.status in TERMINAL:
            return
        tx.batches(task.tenant).set_errors(batch.id, [problem])
        if task.kind is TaskKind.RUN_BATCH:
            tx.queue.add(task.tenant, TaskKind.END_BATCH, batch.id)
        elif batch.status is BatchStatus.CANCELLING:
            end(tx, task.tenant, batch, BatchEvent.CANCELLED)
        else:
            end(tx, task.tenant, batch, BatchEvent.FAILED)


def end_overdue(database: Database, now: int) -> int:
    """Have batches end that are out of time, or cancelled, while no worker runs them."""
    with database.read() as tx:
        overdue = tx.overdue_batches(now)
    ended = 0
    for tenant, batch_id in overdue:
        with database.write() as tx:
            if tx.queue.drop_idle(tenant, WAITING_TASKS, batch_id):
                tx.queue.add(tenant, TaskKind.END_BATCH, batch_id)
                ended += 1
    return ended


def _end_later(tx: Transaction, task: Task, batch: Batch) -> None:
    if batch.status not in TERMINAL:
        tx.queue.add(task.tenant, TaskKind.END_BATCH, batch.id)


def _gone(batch: Batch) -> BatchProblem:
    return BatchProblem(
        "input_file_not_found",
        f"The input file {batch.input_file_id} is not there any more; upload it again.",
        param="input_file_id",
    )
