"""A batch ends: its answers become files, each once, and nothing is left behind."""

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from support.rows import OURS, a_batch, a_file, batch_lines
from tunery.domain.batches import AnsweredLine, Batch, BatchProblem, BatchStatus
from tunery.domain.errors import StorageFull
from tunery.domain.files import FilePurpose, FileStatus
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.domain.webhooks import EventType
from tunery.services import batch_files, batches, webhooks
from tunery.services.validation import NotYet
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.tables import tasks, webhook_deliveries

FOLDER = f"{OURS.project_id}/batches/batch_1"


def answer(line: int) -> AnsweredLine:
    return AnsweredLine(line, line % 3 != 0, {"custom_id": f"request-{line}", "n": line})


def to_end(
    database: Database,
    blobs: LocalBlobStore,
    answered: Iterable[int],
    *,
    with_file: bool = True,
    **changes: Any,
) -> Task:
    """Store a batch that is to end, with answers, and return its task, claimed."""
    if with_file:
        blobs.put(a_file().blob_key, batch_lines(6))
    with database.write() as tx:
        if with_file:
            tx.files(OURS).add(a_file(purpose=FilePurpose.BATCH))
        tx.batches(OURS).add(a_batch(**{"total": 6, **changes}))
        # Answers come in any order.
        if found := [answer(line) for line in answered][::-1]:
            tx.batches(OURS).add_answers("batch_1", found)
        tx.queue.add(OURS, TaskKind.END_BATCH, "batch_1")
    return claim(database)


def claim(database: Database) -> Task:
    with database.write() as tx:
        task = tx.queue.claim([TaskKind.END_BATCH], 60)
    assert task is not None
    return task


def batch_of(database: Database) -> Batch:
    return batches.get_batch(database, OURS, "batch_1")


def lines_of(database: Database, blobs: LocalBlobStore, file_id: str | None) -> list[Any]:
    if file_id is None:
        return []
    with database.read() as tx:
        file = tx.files(OURS).get(file_id)
    assert file is not None
    data = blobs.read(file.blob_key)
    assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (file.purpose, file.status) == (FilePurpose.BATCH_OUTPUT, FileStatus.PROCESSED)
    return [orjson.loads(line) for line in data.splitlines()]


def numbers(lines: list[Any]) -> list[int]:
    return [int(line["custom_id"].removeprefix("request-")) for line in lines]


def test_answers_become_two_files_in_the_order_of_lines(
    database: Database, blobs: LocalBlobStore
) -> None:
    task = to_end(
        database, blobs, range(1, 7), status=BatchStatus.FINALIZING, output_expires_after_s=3600
    )
    batch_files.end_batch(database, blobs, task)
    batch = batch_of(database)
    assert batch.status is BatchStatus.COMPLETED
    output = lines_of(database, blobs, batch.output_file_id)
    assert output == [{"custom_id": f"request-{n}", "n": n} for n in (1, 2, 4, 5)]
    assert numbers(lines_of(database, blobs, batch.error_file_id)) == [3, 6]
    with database.read() as tx:
        for file_id, name in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
            file = tx.files(OURS).get(file_id or "")
            assert file is not None
            assert file.filename == f"batch_1_{name}.jsonl"
            assert file.expires_at == file.created_at + 3600
        assert tx.batches(OURS).answered_lines("batch_1") == set()
        assert not tx.queue.has_free(list(TaskKind))


def test_more_answers_than_a_page_are_all_written(
    database: Database, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_files, "_PAGE", 2)
    task = to_end(database, blobs, range(1, 7), status=BatchStatus.FINALIZING)
    batch_files.end_batch(database, blobs, task)
    batch = batch_of(database)
    assert numbers(lines_of(database, blobs, batch.output_file_id)) == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("answered", "output", "errors"),
    [((1, 2, 4, 5), True, False), ((3, 6), False, True), ((), False, False)],
)
def test_a_file_without_a_line_is_not_made(
    database: Database, blobs: LocalBlobStore, answered: Any, output: bool, errors: bool
) -> None:
    task = to_end(database, blobs, answered, status=BatchStatus.FINALIZING)
    batch_files.end_batch(database, blobs, task)
    batch = batch_of(database)
    assert (batch.output_file_id is not None, batch.error_file_id is not None) == (output, errors)
    assert len(list(blobs.keys(FOLDER))) == output + errors


@pytest.mark.parametrize(
    ("status", "problems", "after", "code"),
    [
        (BatchStatus.IN_PROGRESS, (), BatchStatus.EXPIRED, "batch_expired"),
        (BatchStatus.CANCELLING, (), BatchStatus.CANCELLED, "batch_cancelled"),
        (
            BatchStatus.CANCELLING,
            (BatchProblem("c", "m"),),
            BatchStatus.CANCELLED,
            "batch_cancelled",
        ),
        (BatchStatus.IN_PROGRESS, (BatchProblem("c", "m"),), BatchStatus.FAILED, "batch_failed"),
    ],
)
def test_lines_that_were_not_run_are_told_with_their_reason(
    database: Database,
    blobs: LocalBlobStore,
    status: BatchStatus,
    problems: tuple[BatchProblem, ...],
    after: BatchStatus,
    code: str,
) -> None:
    task = to_end(database, blobs, (2, 3, 5), status=status, errors=problems)
    batch_files.end_batch(database, blobs, task)
    batch = batch_of(database)
    assert (batch.status, batch.errors) == (after, problems)
    assert numbers(lines_of(database, blobs, batch.output_file_id)) == [2, 5]
    told = lines_of(database, blobs, batch.error_file_id)
    assert numbers(told) == [1, 3, 4, 6]
    assert [line.get("error", {}).get("code") for line in told] == [code, None, code, code]


def test_a_batch_stopped_before_its_check_has_no_lines(
    database: Database, blobs: LocalBlobStore
) -> None:
    batch_files.end_batch(database, blobs, to_end(database, blobs, (), total=0))
    batch = batch_of(database)
    assert (batch.status, batch.error_file_id) == (BatchStatus.EXPIRED, None)


def test_answers_are_delivered_also_where_the_input_is_gone(
    database: Database, blobs: LocalBlobStore
) -> None:
    task = to_end(database, blobs, range(1, 4), with_file=False, status=BatchStatus.CANCELLING)
    batch_files.end_batch(database, blobs, task)
    batch = batch_of(database)
    assert batch.status is BatchStatus.CANCELLED
    assert numbers(lines_of(database, blobs, batch.output_file_id)) == [1, 2]


def test_what_a_killed_attempt_left_behind_is_removed(
    database: Database, blobs: LocalBlobStore
) -> None:
    blobs.put(f"{FOLDER}/file-killed", b"half of it")
    task = to_end(database, blobs, range(1, 7), status=BatchStatus.FINALIZING)
    batch_files.end_batch(database, blobs, task)
    batch = batch_of(database)
    kept = sorted(key.rpartition("/")[2] for key in blobs.keys(FOLDER))
    assert kept == sorted([batch.output_file_id or "", batch.error_file_id or ""])


def test_a_worker_that_has_lost_the_end_leaves_it_to_the_other(
    database: Database, blobs: LocalBlobStore
) -> None:
    task = to_end(database, blobs, range(1, 7), status=BatchStatus.FINALIZING)
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(lease_until=0))
    other = claim(database)
    with pytest.raises(LeaseLost):
        batch_files.end_batch(database, blobs, task)
    assert batch_of(database).status is BatchStatus.FINALIZING
    with database.read() as tx:
        page = tx.files(OURS).page(purpose="batch_output", after=None, limit=9, order="asc")
    assert page.items == ()
    batch_files.end_batch(database, blobs, other)
    assert batch_of(database).status is BatchStatus.COMPLETED
    assert len(list(blobs.keys(FOLDER))) == 2


class Cancelling(LocalBlobStore):
    """A store during whose first write the batch is cancelled."""

    database: Database

    def writer(self, key: str) -> Any:
        if batch_of(self.database).status is BatchStatus.IN_PROGRESS:
            batches.cancel_batch(self.database, OURS, "batch_1")
        return super().writer(key)


def test_a_batch_cancelled_while_its_files_are_written_ends_as_cancelled(
    database: Database, blobs: LocalBlobStore, tmp_path: Any
) -> None:
    task = to_end(database, blobs, range(1, 4), status=BatchStatus.IN_PROGRESS)
    store = Cancelling(tmp_path / "store")
    store.database = database
    with pytest.raises(NotYet):
        batch_files.end_batch(database, store, task)
    batch_files.end_batch(database, blobs, task)
    batch = batch_of(database)
    assert batch.status is BatchStatus.CANCELLED
    told = lines_of(database, blobs, batch.error_file_id)
    assert [line.get("error", {}).get("code") for line in told] == [None, *["batch_cancelled"] * 3]


class Full(LocalBlobStore):
    """A store on a disk that is full."""

    def writer(self, key: str) -> Any:
        raise StorageFull("full")


def test_a_full_disk_loses_no_answer(
    database: Database, blobs: LocalBlobStore, tmp_path: Any
) -> None:
    task = to_end(database, blobs, range(1, 7), status=BatchStatus.FINALIZING)
    with pytest.raises(StorageFull):
        batch_files.end_batch(database, Full(tmp_path / "store"), task)
    assert batch_of(database).status is BatchStatus.FINALIZING
    batch_files.end_batch(database, blobs, task)
    assert numbers(lines_of(database, blobs, batch_of(database).output_file_id)) == [1, 2, 4, 5]


def test_a_batch_that_has_ended_is_not_ended_again(
    database: Database, blobs: LocalBlobStore
) -> None:
    task = to_end(database, blobs, (), status=BatchStatus.EXPIRED)
    batch_files.end_batch(database, blobs, task)
    assert batch_of(database) == a_batch(total=6, status=BatchStatus.EXPIRED)
    with database.read() as tx:
        assert not tx.queue.has_free(list(TaskKind))


@pytest.mark.parametrize(
    ("changes", "event"),
    [
        ({"status": BatchStatus.FINALIZING}, "batch.completed"),
        ({"status": BatchStatus.IN_PROGRESS}, "batch.expired"),
        ({"status": BatchStatus.CANCELLING}, "batch.cancelled"),
        (
            {"status": BatchStatus.IN_PROGRESS, "errors": (BatchProblem("c", "m"),)},
            "batch.failed",
        ),
    ],
)
def test_whoever_asked_for_it_is_told_of_the_end_and_once(
    database: Database, blobs: LocalBlobStore, changes: dict[str, Any], event: str
) -> None:
    events = tuple(one for one in EventType if one.startswith("batch."))
    url = "https://example.org/hook"
    webhooks.create_endpoint(database, OURS, name="all", url=url, event_types=events)
    task = to_end(database, blobs, range(1, 7), **changes)
    batch_files.end_batch(database, blobs, task)
    with database.read() as tx:
        told = tx._connection.execute(webhook_deliveries.select()).all()
    assert [row.event_type for row in told] == [event]
    assert orjson.loads(told[0].body)["data"] == {"id": "batch_1"}


def test_an_attempt_that_wakes_up_late_touches_no_file_of_the_one_that_ended(
    database: Database, blobs: LocalBlobStore
) -> None:
    late = to_end(database, blobs, range(1, 7), status=BatchStatus.FINALIZING)
    with database.write() as tx:  # its lease ran out, and another worker has the task
        tx._connection.execute(tasks.update().values(lease_until=0))
    with database.write() as tx:
        other = tx.queue.claim([late.kind], 60)
    assert other is not None
    before = list(blobs.keys(OURS.project_id))
    with pytest.raises(LeaseLost):
        batch_files.end_batch(database, blobs, late)
    assert list(blobs.keys(OURS.project_id)) == before
    batch_files.end_batch(database, blobs, other)
    assert numbers(lines_of(database, blobs, batch_of(database).output_file_id)) == [1, 2, 4, 5]
