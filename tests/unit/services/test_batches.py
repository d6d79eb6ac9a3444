"""Batches as their owners see them: accepted or refused, listed, cancelled."""

import dataclasses
import time
from typing import Any

import pytest

from support.databases import opened
from support.racing import Waiting
from support.rows import OURS, THEIRS, a_batch, a_file
from tunery.domain.batches import TERMINAL, BatchEvent, BatchStatus
from tunery.domain.errors import Conflict, InvalidRequest, NotFound
from tunery.domain.files import MAX_BATCH_BYTES, FilePurpose
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.tasks import Task, TaskKind
from tunery.domain.tenants import Caller
from tunery.services import batches
from tunery.storage.database import Database

CALLER = Caller(OURS, "key_1", "req_1")
REQUEST = batches.BatchRequest("/v1/chat/completions", "file-1", {"k": "v"}, 3600)
ALL_TASKS = (TaskKind.CHECK_BATCH, TaskKind.RUN_BATCH, TaskKind.END_BATCH)


def add_file(database: Database, **changes: Any) -> None:
    with database.write() as tx:
        tx.files(OURS).add(a_file(**{"purpose": FilePurpose.BATCH, **changes}))


def add(database: Database, status: BatchStatus, kind: TaskKind | None) -> None:
    """Store a batch, and a task of it that waits."""
    with database.write() as tx:
        tx.batches(OURS).add(a_batch(status=status))
        if kind is not None:
            tx.queue.add(OURS, kind, "batch_1")


def claim(database: Database) -> Task | None:
    with database.write() as tx:
        return tx.queue.claim(ALL_TASKS, 60)


def test_a_batch_is_accepted_and_queued_to_be_checked(database: Database) -> None:
    add_file(database)
    before = int(time.time())
    batch = batches.create_batch(database, CALLER, REQUEST)
    assert batches.get_batch(database, OURS, batch.id) == batch
    assert (batch.status, batch.endpoint) == (BatchStatus.VALIDATING, "/v1/chat/completions")
    assert (batch.key_id, batch.input_file_id, batch.metadata) == ("key_1", "file-1", {"k": "v"})
    assert (batch.output_expires_after_s, batch.completion_window) == (3600, "24h")
    assert batch.created_at >= before
    assert batch.expires_at == batch.created_at + 86_400
    task = claim(database)
    assert task is not None
    assert (task.kind, task.subject, task.tenant) == (TaskKind.CHECK_BATCH, batch.id, OURS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": "file-2"}, "no file file-1"),
        ({"purpose": FilePurpose.FINE_TUNE}, "purpose 'fine-tune'"),
        ({"purpose": FilePurpose.BATCH_OUTPUT}, "purpose 'batch_output'"),
        ({"size_bytes": MAX_BATCH_BYTES + 1}, "bytes"),
    ],
)
def test_an_input_file_that_does_not_fit_is_refused(
    database: Database, changes: dict[str, Any], words: str
) -> None:
    add_file(database, **changes)
    with pytest.raises(InvalidRequest, match=words) as refused:
        batches.create_batch(database, CALLER, REQUEST)
    assert refused.value.param == "input_file_id"
    assert batches.list_batches(database, OURS, after=None, limit=9).items == ()
    assert claim(database) is None


def test_anothers_file_is_refused_like_an_unknown_one(database: Database) -> None:
    with database.write() as tx:
        tx.files(THEIRS).add(a_file(purpose=FilePurpose.BATCH))
    told = []
    for file_id in ("file-1", "file-x"):
        with pytest.raises(InvalidRequest) as refused:
            batches.create_batch(
                database, CALLER, dataclasses.replace(REQUEST, input_file_id=file_id)
            )
        told.append((refused.value.message.replace(file_id, "<id>"), refused.value.code))
    assert told[0] == told[1]


def test_a_creation_that_is_sent_again_makes_nothing_new(database: Database) -> None:
    add_file(database)
    once = OnceKey(b"k" * 32, b"r" * 32)
    batch = batches.create_batch(database, CALLER, REQUEST, once)
    with pytest.raises(AlreadyDone) as done:
        batches.create_batch(database, CALLER, REQUEST, once)
    assert done.value.object_id == batch.id
    assert batches.list_batches(database, OURS, after=None, limit=9).items == (batch,)


def test_another_projects_batch_answers_as_an_unknown_one(database: Database) -> None:
    add(database, BatchStatus.VALIDATING, TaskKind.CHECK_BATCH)
    for act in (batches.get_batch, batches.cancel_batch):
        for batch_id in ("batch_1", "batch_x"):
            with pytest.raises(NotFound) as refused:
                act(database, THEIRS, batch_id)
            assert refused.value.message == f"No batch found with id '{batch_id}'."
    assert batches.get_batch(database, OURS, "batch_1") == a_batch()
    assert claim(database) is not None


# ---- cancelling


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (BatchStatus.VALIDATING, TaskKind.CHECK_BATCH),
        (BatchStatus.IN_PROGRESS, TaskKind.RUN_BATCH),
    ],
)
def test_a_cancelled_batch_that_waits_is_ended_without_waiting_for_its_turn(
    database: Database, status: BatchStatus, kind: TaskKind
) -> None:
    add(database, status, kind)
    batch = batches.cancel_batch(database, OURS, "batch_1")
    assert batch.status is BatchStatus.CANCELLING
    assert batch.cancelling_at is not None
    task = claim(database)
    assert task is not None
    assert task.kind is TaskKind.END_BATCH
    assert claim(database) is None
    assert batches.cancel_batch(database, OURS, "batch_1") == batch  # and nothing more happens
    assert claim(database) is None


@pytest.mark.parametrize("status", [BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS])
def test_a_cancelled_batch_that_is_worked_on_is_left_to_its_worker(
    database: Database, status: BatchStatus
) -> None:
    add(database, status, TaskKind.RUN_BATCH)
    task = claim(database)
    assert task is not None
    assert batches.cancel_batch(database, OURS, "batch_1").status is BatchStatus.CANCELLING
    with database.write() as tx:
        tx.queue.hold(task)  # still the worker's
    assert claim(database) is None


@pytest.mark.parametrize("status", [BatchStatus.FINALIZING, *sorted(TERMINAL)])
def test_a_batch_that_has_ended_is_not_cancelled(database: Database, status: BatchStatus) -> None:
    add(database, status, None)
    with pytest.raises(Conflict) as refused:
        batches.cancel_batch(database, OURS, "batch_1")
    assert refused.value.code == "batch_not_cancellable"
    assert batches.get_batch(database, OURS, "batch_1") == a_batch(status=status)
    assert claim(database) is None


def test_a_cancellation_waits_for_a_check_that_ends_and_takes_up_what_it_queued(
    postgresql_url: str,
) -> None:
    with opened(postgresql_url) as database:
        add(database, BatchStatus.VALIDATING, TaskKind.CHECK_BATCH)
        task = claim(database)
        assert task is not None
        with database.write() as checking:
            checking.queue.finish(task)
            checking.batches(OURS).advance(a_batch(), BatchEvent.ACCEPTED, 5)
            cancelling = Waiting(lambda: batches.cancel_batch(database, OURS, "batch_1"))
            cancelling.wait_for_lock(database)
            checking.queue.add(OURS, TaskKind.RUN_BATCH, "batch_1")
        assert cancelling.result() is None
        assert batches.get_batch(database, OURS, "batch_1").status is BatchStatus.CANCELLING
        task = claim(database)
        assert task is not None
        assert task.kind is TaskKind.END_BATCH
        assert claim(database) is None
