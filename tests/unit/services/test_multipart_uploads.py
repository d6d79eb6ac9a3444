"""Uploads in parts: the file is whole and made once, or there is none and the upload waits."""

import dataclasses
import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from support.children import line_of, python
from support.databases import opened
from support.racing import Waiting
from support.rows import OURS, THEIRS, an_upload, chat_line, chat_lines
from tunery.domain.errors import InvalidRequest, NotFound, TooLarge, TuneryError
from tunery.domain.files import FilePurpose, FileStatus
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.domain.uploads import UploadPart, UploadStatus
from tunery.services import multipart_uploads as uploads
from tunery.services.multipart_uploads import UploadRequest, UploadView
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.tables import uploads as rows

DATA = chat_lines(3)
HALVES = (DATA[:50], DATA[50:])  # cut within a line
MAX = 10**9
JSONL = UploadRequest("train.jsonl", FilePurpose.FINE_TUNE, "text/jsonl", len(DATA), None)


def create(database: Database, **changes: Any) -> str:
    request = dataclasses.replace(JSONL, **changes)
    return uploads.create_upload(database, OURS, request, MAX).upload.id


def add(
    database: Database,
    blobs: LocalBlobStore,
    upload_id: str,
    data: bytes,
    once: OnceKey | None = None,
    tenant: Tenant = OURS,
) -> UploadPart:
    with uploads.receive_part(blobs, tenant) as part:
        part.write(data[:5])
        part.write(data[5:])
        return part.finish(database, tenant, upload_id, once)


def filled(database: Database, blobs: LocalBlobStore, **changes: Any) -> tuple[str, list[str]]:
    upload_id = create(database, **changes)
    return upload_id, [add(database, blobs, upload_id, half).id for half in HALVES]


def complete(
    database: Database,
    blobs: LocalBlobStore,
    upload_id: str,
    part_ids: list[str],
    md5: str | None = None,
    **options: Any,
) -> UploadView:
    maximum = options.pop("max_file_bytes", MAX)
    return uploads.complete_upload(
        database, blobs, OURS, upload_id, part_ids, md5, maximum, **options
    )


def put_back(database: Database, seconds: int) -> None:
    """Make every upload older."""
    with database.engine.begin() as connection:
        connection.execute(sa.update(rows).values(expires_at=rows.c.expires_at - seconds))


def refusal(call: Callable[[], Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        call()
    return refused.value


def files_of(database: Database) -> list[str]:
    with database.read() as tx:
        page = tx.files(OURS).page(purpose=None, after=None, limit=99, order="asc")
    return [file.id for file in page.items]


def blob_keys(blobs: LocalBlobStore) -> list[str]:
    return list(blobs.keys(OURS.project_id))


def assert_waits(database: Database, blobs: LocalBlobStore, upload_id: str, parts: int) -> None:
    """Assert that the upload is pending with its parts, and that there is no file of it."""
    assert uploads.get_upload(database, OURS, upload_id).upload.status is UploadStatus.PENDING
    assert files_of(database) == []
    assert len(blob_keys(blobs)) == parts
    assert list(blobs._temporary.iterdir()) == []


# ---- completion


def test_the_file_is_its_parts_in_the_order_asked_for(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id = create(database, file_expires_after_s=7200)
    second = add(database, blobs, upload_id, HALVES[1]).id
    unused = add(database, blobs, upload_id, b"not in the list").id
    first = add(database, blobs, upload_id, HALVES[0]).id
    md5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
    view = complete(database, blobs, upload_id, [first, second], md5.upper())
    file = view.file
    assert file is not None
    assert (view.upload.status, view.upload.file_id) == (UploadStatus.COMPLETED, file.id)
    assert blobs.read(file.blob_key) == DATA
    assert (file.size_bytes, file.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    assert (file.filename, file.purpose) == ("train.jsonl", FilePurpose.FINE_TUNE)
    assert file.status is FileStatus.UPLOADED
    assert file.expires_at == file.created_at + 7200
    assert blob_keys(blobs) == [file.blob_key]  # the parts are gone, the unused one too
    with database.write() as tx:
        task = tx.queue.claim([TaskKind.CHECK_FILE], 60)
        assert task is not None
        assert task.subject == file.id
        assert tx.uploads(OURS).part(unused) is None


def test_a_repeat_of_a_completion_returns_the_same_and_another_one_is_refused(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, part_ids = filled(database, blobs)
    first = complete(database, blobs, upload_id, part_ids)
    assert complete(database, blobs, upload_id, part_ids) == first
    assert len(files_of(database)) == 1
    error = refusal(lambda: complete(database, blobs, upload_id, part_ids[::-1]))
    assert (error.code, "is completed, with other" in error.message) == ("upload_not_pending", True)
    refusal(lambda: complete(database, blobs, upload_id, part_ids, "0" * 32))
    assert first.file is not None
    with database.write() as tx:
        tx.files(OURS).delete(first.file.id)
    assert complete(database, blobs, upload_id, part_ids).file is None


WRONG: dict[str, tuple[Callable[[list[str]], list[str]], str | None, str, str]] = {
    "too few": (lambda ids: ids[:1], None, "part_ids", "have 50 bytes together"),
    "none of it": (lambda ids: ["part_x"], None, "part_ids", "no part part_x"),
    "one twice": (lambda ids: [ids[0], ids[0]], None, "part_ids", "stands twice"),
    "another md5": (lambda ids: ids, "0" * 32, "md5", "MD5 is "),
}


@pytest.mark.parametrize("how", WRONG)
def test_a_completion_that_does_not_fit_is_refused_and_the_upload_waits(
    database: Database, blobs: LocalBlobStore, how: str
) -> None:
    choose, md5, param, says = WRONG[how]
    upload_id, part_ids = filled(database, blobs)
    error = refusal(lambda: complete(database, blobs, upload_id, choose(part_ids), md5))
    assert error.param == param
    assert says in error.message
    assert_waits(database, blobs, upload_id, parts=2)
    assert complete(database, blobs, upload_id, part_ids).file is not None


def test_lines_that_are_no_json_are_refused_as_in_a_whole_file(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, part_ids = filled(database, blobs)
    error = refusal(lambda: complete(database, blobs, upload_id, part_ids[::-1]))
    assert "Expected file to have JSONL format" in error.message
    assert_waits(database, blobs, upload_id, parts=2)


def test_a_training_file_is_held_to_the_limit_of_all_files(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, part_ids = filled(database, blobs)
    with pytest.raises(TooLarge):  # the limit was lowered since the upload was created
        complete(database, blobs, upload_id, part_ids, max_file_bytes=len(DATA) - 1)
    assert_waits(database, blobs, upload_id, parts=2)
    for purpose, taken in (("fine-tune", False), ("batch", False), ("user_data", True)):
        request = dataclasses.replace(JSONL, purpose=FilePurpose(purpose), size_bytes=101)
        if taken:
            assert uploads.create_upload(database, OURS, request, 100).upload.size_bytes == 101
        else:
            error = refusal(partial(uploads.create_upload, database, OURS, request, 100))
            assert (error.param, error.code) == ("bytes", "invalid_value")


def test_a_batch_upload_is_held_to_200_mb(database: Database) -> None:
    batch = dataclasses.replace(JSONL, purpose=FilePurpose.BATCH, size_bytes=209_715_200)
    assert uploads.create_upload(database, OURS, batch, MAX).file is None
    over = dataclasses.replace(batch, size_bytes=209_715_201)
    assert refusal(lambda: uploads.create_upload(database, OURS, over, MAX)).param == "bytes"


@pytest.mark.parametrize("filename", ["", "x" * 256, "a\0b"])
def test_a_filename_that_no_file_can_have_is_refused_at_once(
    database: Database, filename: str
) -> None:
    assert refusal(lambda: create(database, filename=filename)).param == "filename"


# ---- parts


def test_a_part_is_kept_and_read_as_it_came(database: Database, blobs: LocalBlobStore) -> None:
    upload_id = create(database)
    part = add(database, blobs, upload_id, b"0123456789")
    assert blobs.read(part.blob_key) == b"0123456789"
    assert (part.size_bytes, part.upload_id) == (10, upload_id)
    assert part.sha256 == hashlib.sha256(b"0123456789").hexdigest()
    assert uploads.get_part(database, OURS, part.id) == part


def test_a_part_over_its_limit_or_empty_is_refused_and_not_kept(
    database: Database, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = create(database)
    assert refusal(lambda: add(database, blobs, upload_id, b"")).param == "data"
    monkeypatch.setattr(uploads, "MAX_PART_BYTES", 10)
    with pytest.raises(TooLarge) as refused:
        add(database, blobs, upload_id, b"x" * 11)
    assert refused.value.param == "data"
    assert_waits(database, blobs, upload_id, parts=0)
    assert add(database, blobs, upload_id, b"x" * 10).size_bytes == 10


@pytest.mark.parametrize("limit", ["MAX_UPLOAD_BYTES", "MAX_PARTS"])
def test_parts_are_bounded_together(
    database: Database, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    upload_id = create(database, purpose=FilePurpose.USER_DATA)
    monkeypatch.setattr(uploads, limit, 20 if limit == "MAX_UPLOAD_BYTES" else 2)
    for _ in range(2):
        add(database, blobs, upload_id, b"x" * 10)
    assert refusal(lambda: add(database, blobs, upload_id, b"x")).code == "upload_full"
    assert_waits(database, blobs, upload_id, parts=2)


def end(database: Database, blobs: LocalBlobStore, how: str) -> str:
    """Return an upload that has ended in this way."""
    upload_id, part_ids = filled(database, blobs)
    if how == "completed":
        complete(database, blobs, upload_id, part_ids)
    elif how == "cancelled":
        uploads.cancel_upload(database, blobs, OURS, upload_id)
    else:
        put_back(database, 3600)
    return upload_id


@pytest.mark.parametrize("how", ["completed", "cancelled", "expired"])
def test_an_upload_that_has_ended_takes_no_parts_and_says_so(
    database: Database, blobs: LocalBlobStore, how: str
) -> None:
    upload_id = end(database, blobs, how)
    before = blob_keys(blobs)
    for act in (
        lambda: uploads.require_pending(database, OURS, upload_id),
        lambda: add(database, blobs, upload_id, b"late"),
    ):
        error = refusal(act)
        assert f"Upload {upload_id} is {how}" in error.message
        assert error.code == "upload_not_pending"
    assert blob_keys(blobs) == before
    assert list(blobs._temporary.iterdir()) == []


@pytest.mark.parametrize("how", ["completed", "cancelled", "expired"])
def test_an_upload_that_has_ended_is_not_ended_otherwise(
    database: Database, blobs: LocalBlobStore, how: str
) -> None:
    upload_id = end(database, blobs, how)
    assert f"is {how}" in refusal(lambda: complete(database, blobs, upload_id, ["p"])).message
    if how == "cancelled":
        view = uploads.cancel_upload(database, blobs, OURS, upload_id)
        assert view.upload.status is UploadStatus.CANCELLED
        assert blob_keys(blobs) == []
    else:
        error = refusal(lambda: uploads.cancel_upload(database, blobs, OURS, upload_id))
        assert f"is {how}" in error.message


# ---- the same request again


def test_an_upload_and_a_part_are_made_once_under_a_key(
    database: Database, blobs: LocalBlobStore
) -> None:
    one, two = OnceKey(b"1" * 32, b"r" * 32), OnceKey(b"2" * 32, b"r" * 32)
    upload_id = uploads.create_upload(database, OURS, JSONL, MAX, one).upload.id
    with pytest.raises(AlreadyDone) as done:
        uploads.create_upload(database, OURS, JSONL, MAX, one)
    assert done.value.object_id == upload_id
    part = add(database, blobs, upload_id, DATA, two)
    with pytest.raises(AlreadyDone) as done:
        add(database, blobs, upload_id, DATA, two)
    assert done.value.object_id == part.id
    assert blob_keys(blobs) == [part.blob_key]


# ---- tenants


def test_anothers_upload_and_part_answer_as_unknown_ones(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, part_ids = filled(database, blobs)
    acts: dict[str, Callable[[str], Any]] = {
        "get": lambda i: uploads.get_upload(database, THEIRS, i),
        "pending": lambda i: uploads.require_pending(database, THEIRS, i),
        "add": lambda i: add(database, blobs, i, b"x", tenant=THEIRS),
        "cancel": lambda i: uploads.cancel_upload(database, blobs, THEIRS, i),
        "complete": lambda i: uploads.complete_upload(
            database, blobs, THEIRS, i, part_ids, None, MAX
        ),
    }
    for name, act in acts.items():
        told = []
        for known in (upload_id, "upload_x"):
            with pytest.raises(NotFound) as refused:
                act(known)
            error = refused.value
            told.append((error.message.replace(known, "<id>"), error.param, error.code))
        assert told[0] == told[1], name
    with pytest.raises(NotFound):
        uploads.get_part(database, THEIRS, part_ids[0])
    theirs = uploads.create_upload(database, THEIRS, JSONL, MAX).upload.id
    with pytest.raises(InvalidRequest, match="no part"):
        uploads.complete_upload(database, blobs, THEIRS, theirs, part_ids, None, MAX)
    assert_waits(database, blobs, upload_id, parts=2)


# ---- races


class Halting(LocalBlobStore):
    """Gives the bytes of parts, but waits for a sign after the first piece."""

    def __init__(self, blobs: LocalBlobStore) -> None:
        super().__init__(blobs._root)
        self.reading, self.goes_on = threading.Event(), threading.Event()

    def stream(self, key: str) -> Iterator[bytes]:
        for chunk in super().stream(key):
            yield chunk
            self.reading.set()
            assert self.goes_on.wait(30)


@pytest.mark.parametrize("other", ["same", "other order", "cancel", "sweep"])
def test_one_of_two_acts_on_an_upload_wins(
    database: Database, blobs: LocalBlobStore, other: str
) -> None:
    lines = [chat_line("a"), chat_line("b")]
    upload_id = create(database, size_bytes=sum(map(len, lines)))
    part_ids = [add(database, blobs, upload_id, line).id for line in lines]
    halting = Halting(blobs)
    views: list[UploadView] = []
    late = Waiting(lambda: views.append(complete(database, halting, upload_id, part_ids)))
    assert halting.reading.wait(30)
    if other == "cancel":
        uploads.cancel_upload(database, blobs, OURS, upload_id)
    elif other == "sweep":
        put_back(database, 3600)
        uploads.sweep(database, blobs, int(time.time()) + uploads.GRACE_S)
    else:
        order = part_ids if other == "same" else part_ids[::-1]
        won = complete(database, blobs, upload_id, order)
    halting.goes_on.set()
    error = late.result()
    assert list(blobs._temporary.iterdir()) == []
    if other == "same":
        assert error is None
        assert views == [won]
    else:
        assert isinstance(error, InvalidRequest)
        assert error.code == "upload_not_pending"
    assert (
        len(files_of(database))
        == len(blob_keys(blobs))
        == (1 if "same" in other or "order" in other else 0)
    )
    if other == "other order":
        assert won.file is not None
        assert blobs.read(won.file.blob_key) == b"".join(lines[::-1])


def test_completions_at_the_same_moment_make_one_file(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, part_ids = filled(database, blobs)
    together = threading.Barrier(4)
    views: list[UploadView] = []

    def run() -> None:
        together.wait()
        views.append(complete(database, blobs, upload_id, part_ids))

    racers = [Waiting(run) for _ in range(4)]
    assert [racer.result() for racer in racers] == [None] * 4
    assert len(set(map(repr, views))) == 1
    assert len(views) == 4
    assert len(files_of(database)) == len(blob_keys(blobs)) == 1


def test_parts_that_come_at_the_same_moment_are_all_kept(
    database: Database, blobs: LocalBlobStore
) -> None:
    pieces = [chat_line(f"number {n}") for n in range(8)]
    upload_id = create(database, size_bytes=sum(map(len, pieces)))
    together = threading.Barrier(8)
    part_ids = [""] * 8

    def send(number: int) -> None:
        together.wait()
        part_ids[number] = add(database, blobs, upload_id, pieces[number]).id

    racers = [Waiting(partial(send, number)) for number in range(8)]
    assert [racer.result() for racer in racers] == [None] * 8
    file = complete(database, blobs, upload_id, part_ids).file
    assert file is not None
    assert blobs.read(file.blob_key) == b"".join(pieces)


# ---- crashes

KILLED = """
import sys
from pathlib import Path
from tunery.domain.tenants import Tenant
from tunery.services import multipart_uploads
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database

class Halting(LocalBlobStore):
    def stream(self, key):
        yield from super().stream(key)
        print("half-way", flush=True)
        sys.stdin.readline()

url, folder, upload_id, *part_ids = sys.argv[1:]
multipart_uploads.complete_upload(
    Database(url), Halting(Path(folder)), Tenant("org-1", "acme", "proj_ours"), upload_id, part_ids,
    None, 10**9,
)
"""


def test_a_completion_that_is_killed_leaves_a_pending_upload_and_no_file(
    database_url: str, blobs: LocalBlobStore
) -> None:
    with opened(database_url) as database:
        upload_id, part_ids = filled(database, blobs)
        with python(KILLED, database_url, str(blobs._root), upload_id, *part_ids) as child:
            assert line_of(child) == "half-way"
            child.kill()
            assert child.wait(timeout=60) == -signal.SIGKILL
        (rest,) = blobs._temporary.iterdir()  # what is left of it is no blob, and is swept
        rest.unlink()
        assert_waits(database, blobs, upload_id, parts=2)
        file = complete(database, blobs, upload_id, part_ids).file
        assert file is not None
        assert blobs.read(file.blob_key) == DATA


def test_parts_that_a_crash_kept_of_an_ended_upload_are_swept(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, part_ids = filled(database, blobs)
    other, _ = filled(database, blobs)

    class Failing(LocalBlobStore):
        def delete(self, key: str) -> None:
            raise OSError("gone in the middle")

    view = complete(database, Failing(blobs._root), upload_id, part_ids)
    assert view.upload.status is UploadStatus.COMPLETED  # answered all the same
    assert view.file is not None
    assert len(blob_keys(blobs)) == 5
    assert uploads.sweep(database, blobs, int(time.time())) == 0
    assert len(blob_keys(blobs)) == 3
    with database.read() as tx:
        assert tx.uploads(OURS).parts(upload_id) == []
        assert len(tx.uploads(OURS).parts(other)) == 2
    assert blobs.read(view.file.blob_key) == DATA


def test_bytes_that_are_missing_are_told_and_the_upload_waits(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, part_ids = filled(database, blobs)
    blobs.delete(blob_keys(blobs)[0])
    with pytest.raises(TuneryError) as told:
        complete(database, blobs, upload_id, part_ids)
    assert told.value.code == "upload_damaged"
    assert_waits(database, blobs, upload_id, parts=1)


# ---- expiry


def test_an_expired_upload_is_swept_with_its_parts_once_late_completions_are_over(
    database: Database, blobs: LocalBlobStore
) -> None:
    upload_id, _ = filled(database, blobs)
    now = int(time.time())
    put_back(database, 3600)
    assert uploads.sweep(database, blobs, now) == 0
    assert len(blob_keys(blobs)) == 2  # a completion that began in time may be reading them
    assert uploads.sweep(database, blobs, now + uploads.GRACE_S + 5) == 1
    assert blob_keys(blobs) == []
    assert uploads.get_upload(database, OURS, upload_id).upload.status is UploadStatus.EXPIRED
    assert uploads.sweep(database, blobs, now + uploads.GRACE_S + 5) == 0


def test_a_sweep_leaves_pending_uploads_alone(database: Database, blobs: LocalBlobStore) -> None:
    upload_id, _ = filled(database, blobs)
    assert uploads.sweep(database, blobs, int(time.time())) == 0
    assert_waits(database, blobs, upload_id, parts=2)


def test_an_upload_is_read_as_it_was_stored(database: Database) -> None:
    upload = an_upload(filename="Zoë.jsonl", mime_type="text/jsonl; a=ü", file_expires_after_s=3600)
    with database.write() as tx:
        tx.uploads(OURS).add(upload)
    with database.read() as tx:
        assert tx.uploads(OURS).get(upload.id) == upload
        assert tx.uploads(THEIRS).get(upload.id) is None
