"""A tenant's files, read and deleted by their owner only."""

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.databases import opened
from support.racing import Waiting
from support.rows import OURS, THEIRS, a_batch, a_file, a_job
from tunery.domain.batches import BatchStatus
from tunery.domain.errors import Conflict, InvalidRequest, NotFound
from tunery.domain.files import FilePurpose, FileReport, FileStatus
from tunery.domain.jobs import JobEvent, JobStatus
from tunery.domain.tasks import TaskKind
from tunery.services import files
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database


def stored(database: Database, blobs: LocalBlobStore, **changes: Any) -> str:
    file = a_file(**changes)
    blobs.put(file.blob_key, b"the bytes")
    with database.write() as tx:
        tx.files(OURS).add(file)
        tx.queue.add(OURS, TaskKind.CHECK_FILE, file.id)
    return file.id


def test_a_file_is_read_and_listed_by_its_owner(database: Database, blobs: LocalBlobStore) -> None:
    stored(database, blobs)
    assert files.get_file(database, OURS, "file-1") == a_file()
    page = files.list_files(database, OURS, purpose=None, after=None, limit=9, order="asc")
    assert page.items == (a_file(),)
    content = files.file_content(database, blobs, OURS, "file-1", results_as_base64=True)
    assert b"".join(content) == b"the bytes"


@pytest.mark.parametrize("as_base64", [True, False])
def test_a_result_file_is_given_as_base64_where_asked(
    database: Database, blobs: LocalBlobStore, as_base64: bool
) -> None:
    stored(database, blobs, purpose=FilePurpose.FINE_TUNE_RESULTS)
    content = b"".join(
        files.file_content(database, blobs, OURS, "file-1", results_as_base64=as_base64)
    )
    assert (base64.b64decode(content) if as_base64 else content) == b"the bytes"


ACTS: dict[str, Callable[[Database, LocalBlobStore, str], Any]] = {
    "get": lambda db, blobs, i: files.get_file(db, THEIRS, i),
    "content": lambda db, blobs, i: files.file_content(
        db, blobs, THEIRS, i, results_as_base64=False
    ),
    "delete": lambda db, blobs, i: files.delete_file(db, blobs, THEIRS, i),
    "list": lambda db, blobs, i: files.list_files(
        db, THEIRS, purpose=None, after=i, limit=9, order="asc"
    ),
}


@pytest.mark.parametrize("act", ACTS)
def test_another_projects_file_answers_as_an_unknown_one(
    database: Database, blobs: LocalBlobStore, act: str
) -> None:
    stored(database, blobs)
    told = []
    for file_id in ("file-1", "file-x"):
        with pytest.raises((NotFound, InvalidRequest)) as refused:
            ACTS[act](database, blobs, file_id)
        error = refused.value
        told.append((type(error), error.message.replace(file_id, "<id>"), error.param, error.code))
    assert told[0] == told[1]
    assert blobs.read("p/files/file-1") == b"the bytes"
    assert files.get_file(database, OURS, "file-1") == a_file()


def test_a_deleted_file_is_gone_with_its_bytes_and_its_task(
    database: Database, blobs: LocalBlobStore
) -> None:
    stored(database, blobs)
    files.delete_file(database, blobs, OURS, "file-1")
    assert list(blobs.keys("p")) == []
    with pytest.raises(NotFound):
        files.get_file(database, OURS, "file-1")
    with pytest.raises(NotFound):
        files.delete_file(database, blobs, OURS, "file-1")
    with database.write() as tx:
        assert tx.queue.claim([TaskKind.CHECK_FILE], 60) is None


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
@pytest.mark.parametrize("status", JobStatus)
def test_a_file_is_not_deleted_while_a_job_needs_it(
    database: Database, blobs: LocalBlobStore, field: str, status: JobStatus
) -> None:
    stored(database, blobs)
    with database.write() as tx:
        tx.jobs(OURS).add(a_job(**{"training_file": "x", field: "file-1", "status": status}))
    if status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED):
        files.delete_file(database, blobs, OURS, "file-1")
        return
    with pytest.raises(Conflict, match="ftjob-1") as refused:
        files.delete_file(database, blobs, OURS, "file-1")
    assert refused.value.code == "file_in_use"
    assert blobs.read("p/files/file-1") == b"the bytes"


@pytest.mark.parametrize("status", BatchStatus)
def test_a_file_is_not_deleted_while_a_batch_needs_it(
    database: Database, blobs: LocalBlobStore, status: BatchStatus
) -> None:
    stored(database, blobs)
    with database.write() as tx:
        tx.batches(THEIRS).add(a_batch(input_file_id="file-1"))
        tx.batches(OURS).add(a_batch(input_file_id="file-1", status=status))
    if status in ("completed", "failed", "expired", "cancelled"):
        files.delete_file(database, blobs, OURS, "file-1")
        return
    with pytest.raises(Conflict, match="batch_1") as refused:
        files.delete_file(database, blobs, OURS, "file-1")
    assert refused.value.code == "file_in_use"
    assert blobs.read("p/files/file-1") == b"the bytes"


def test_a_file_deleted_while_its_check_ends_is_deleted_after_it(
    postgresql_url: str, blobs: LocalBlobStore
) -> None:
    with opened(postgresql_url) as database:
        stored(database, blobs)
        with database.write() as tx:
            task = tx.queue.claim([TaskKind.CHECK_FILE], 60)
        assert task is not None
        with database.write() as checking:
            checking.queue.finish(task)
            deleting = Waiting(lambda: files.delete_file(database, blobs, OURS, "file-1"))
            deleting.wait_for_lock(database)
            checking.files(OURS).set_checked("file-1", FileStatus.PROCESSED, FileReport(9, (), 0))
        assert deleting.result() is None
        with pytest.raises(NotFound):
            files.get_file(database, OURS, "file-1")


def test_a_file_that_a_job_is_being_made_with_is_deleted_only_after_that(
    postgresql_url: str, blobs: LocalBlobStore
) -> None:
    with opened(postgresql_url) as database:
        stored(database, blobs)
        with database.write() as creating:
            assert creating.files(OURS).visible("file-1", lock="shared") is not None
            deleting = Waiting(lambda: files.delete_file(database, blobs, OURS, "file-1"))
            deleting.wait_for_lock(database)
            creating.jobs(OURS).add(a_job())
        assert isinstance(deleting.result(), Conflict)
        assert blobs.read("p/files/file-1") == b"the bytes"


# ---- expiry

NOW = int(time.time())
SWEEP: dict[str, tuple[int | None, bool]] = {
    "no expiry": (None, True),
    "in an hour": (NOW + 3600, True),
    "at its second": (NOW, False),
    "long ago": (1_700_003_600, False),
}


@pytest.mark.parametrize("when", SWEEP)
def test_a_file_is_there_until_its_time_and_then_swept_with_its_bytes(
    database: Database, blobs: LocalBlobStore, when: str
) -> None:
    expires_at, stays = SWEEP[when]
    stored(database, blobs, expires_at=expires_at)
    assert files.remove_expired(database, blobs, NOW) == (0 if stays else 1)
    assert list(blobs.keys("p")) == (["p/files/file-1"] if stays else [])
    with database.read() as tx:
        assert (tx.files(OURS).get("file-1") is not None) == stays


EXPIRED: dict[str, Callable[[Database, LocalBlobStore, str], Any]] = {
    "get": lambda db, blobs, i: files.get_file(db, OURS, i),
    "content": lambda db, blobs, i: files.file_content(db, blobs, OURS, i, results_as_base64=False),
    "delete": lambda db, blobs, i: files.delete_file(db, blobs, OURS, i),
    "list": lambda db, blobs, i: files.list_files(
        db, OURS, purpose=None, after=i, limit=9, order="asc"
    ),
}


@pytest.mark.parametrize("act", EXPIRED)
def test_an_expired_file_answers_as_an_unknown_one_before_it_is_swept(
    database: Database, blobs: LocalBlobStore, act: str
) -> None:
    stored(database, blobs, expires_at=NOW - 1)
    told = []
    for file_id in ("file-1", "file-x"):
        with pytest.raises((NotFound, InvalidRequest)) as refused:
            EXPIRED[act](database, blobs, file_id)
        error = refused.value
        told.append((type(error), error.message.replace(file_id, "<id>"), error.param, error.code))
    assert told[0] == told[1]
    page = files.list_files(database, OURS, purpose=None, after=None, limit=9, order="asc")
    assert page.items == ()


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
def test_an_expired_file_is_kept_until_the_job_that_needs_it_has_ended(
    database: Database, blobs: LocalBlobStore, field: str
) -> None:
    stored(database, blobs, expires_at=NOW - 1)
    with database.write() as tx:
        tx.jobs(OURS).add(a_job(**{"training_file": "x", field: "file-1"}))
        tx.jobs(THEIRS).add(a_job(**{"training_file": "x", "status": JobStatus.FAILED}))
    assert files.remove_expired(database, blobs, NOW) == 0
    assert blobs.read("p/files/file-1") == b"the bytes"
    with database.write() as tx:
        assert tx.files(OURS).get("file-1") is not None
        tx.jobs(OURS).advance(a_job(), JobEvent.CANCELLED)
    assert files.remove_expired(database, blobs, NOW) == 1


@pytest.mark.parametrize("status", BatchStatus)
def test_an_expired_file_is_kept_until_the_batch_that_needs_it_has_ended(
    database: Database, blobs: LocalBlobStore, status: BatchStatus
) -> None:
    stored(database, blobs, purpose=FilePurpose.BATCH, expires_at=NOW - 1)
    with database.write() as tx:
        tx.batches(OURS).add(a_batch(input_file_id="file-1", status=status))
    ended = status in ("completed", "failed", "expired", "cancelled")
    assert files.remove_expired(database, blobs, NOW) == (1 if ended else 0)


def test_more_files_than_are_swept_at_once_are_all_swept(
    database: Database, blobs: LocalBlobStore
) -> None:
    for number in range(45):
        stored(database, blobs, file_id=f"file-{number}", expires_at=NOW - number)
    assert files.remove_expired(database, blobs, NOW) == 45
    assert list(blobs.keys("p")) == []


def test_a_sweep_broken_off_between_bytes_and_rows_is_taken_up_by_the_next(
    database: Database, blobs: LocalBlobStore
) -> None:
    for number in range(3):
        stored(database, blobs, file_id=f"file-{number}", expires_at=NOW - 1)

    class Breaking(LocalBlobStore):
        def delete(self, key: str) -> None:
            super().delete(key)
            if key.endswith("1"):
                raise OSError("broken off")

    with pytest.raises(OSError, match="broken off"):
        files.remove_expired(database, Breaking(blobs._root), NOW)
    assert files.remove_expired(database, blobs, NOW) == 3
    assert list(blobs.keys("p")) == []
