"""Uploads: whole and known, or nothing of them."""

import dataclasses
import hashlib

import pytest

from support.databases import opened
from support.rows import OURS, THEIRS, chat_line, chat_lines, chunks
from tunery.domain import files as domain_files
from tunery.domain.errors import Conflict, InvalidRequest, TooLarge, TuneryError, Unavailable
from tunery.domain.files import FilePurpose, FileStatus, StoredFile
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.tasks import TaskKind
from tunery.services.uploads import receive
from tunery.storage import database as database_module
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

FINE_TUNE = FilePurpose.FINE_TUNE


def upload(
    database: Database,
    blobs: LocalBlobStore,
    data: bytes,
    *,
    purpose: FilePurpose = FINE_TUNE,
    filename: str = "train.jsonl",
    max_bytes: int = 10**6,
    piece: int = 7,
    expires_after_s: int | None = None,
    once: OnceKey | None = None,
) -> StoredFile:
    with receive(blobs, OURS, max_bytes) as incoming:
        for chunk in chunks(data, piece):
            incoming.write(chunk)
        return incoming.finish(
            database, OURS, purpose, filename, expires_after_s=expires_after_s, once=once
        )


def assert_nothing_is_kept(database: Database, blobs: LocalBlobStore) -> None:
    assert list(blobs.keys(OURS.project_id)) == []
    assert list(blobs._temporary.iterdir()) == []
    with database.write() as tx:
        page = tx.files(OURS).page(purpose=None, after=None, limit=9, order="asc")
        assert page.items == ()
        assert tx.queue.claim(list(TaskKind), 60) is None


def test_a_training_file_is_kept_whole_and_queued_to_be_checked(
    database: Database, blobs: LocalBlobStore
) -> None:
    data = chat_lines(3)
    file = upload(database, blobs, data, filename="Zoë.jsonl")
    assert blobs.read(file.blob_key) == data
    assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (file.status, file.filename) == (FileStatus.UPLOADED, "Zoë.jsonl")
    with database.write() as tx:
        assert tx.files(OURS).get(file.id) == file
        assert tx.files(THEIRS).get(file.id) is None
        task = tx.queue.claim([TaskKind.CHECK_FILE], 60)
        assert task is not None
        assert (task.subject, task.tenant) == (file.id, OURS)
    assert file.blob_key.startswith(f"{OURS.project_id}/")


@pytest.mark.parametrize("purpose", [p for p in FilePurpose if p is not FINE_TUNE])
def test_a_file_for_another_purpose_is_ready_at_once(
    database: Database, blobs: LocalBlobStore, purpose: FilePurpose
) -> None:
    file = upload(database, blobs, b'{"a": 1}\n', purpose=purpose)
    assert file.status is FileStatus.PROCESSED
    with database.write() as tx:
        assert tx.queue.claim(list(TaskKind), 60) is None


def test_any_bytes_are_taken_where_no_jsonl_is_asked_for(
    database: Database, blobs: LocalBlobStore
) -> None:
    data = bytes(range(256))
    file = upload(database, blobs, data, purpose=FilePurpose.VISION)
    assert blobs.read(file.blob_key) == data


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blank": (b"\n \n\r\n", "every line is blank"),
    "a list": (chat_line() + b"[1]\n", "Line 2 is not a dictionary"),
    "cut off": (chat_line() + b"\n" + chat_line()[:-10], "Line 3 is not a dictionary"),
    "not utf-8": (b'{"a": "\xff"}\n', "Line 1 is not a dictionary"),
}


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("piece", [1, 10**6])
def test_a_file_of_a_wrong_form_is_refused_and_nothing_is_kept(
    database: Database, blobs: LocalBlobStore, how: str, piece: int
) -> None:
    data, words = BAD[how]
    with pytest.raises(InvalidRequest, match=words):
        upload(database, blobs, data, piece=piece)
    assert_nothing_is_kept(database, blobs)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b"])
def test_a_wrong_file_name_is_refused_and_nothing_is_kept(
    database: Database, blobs: LocalBlobStore, name: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        upload(database, blobs, chat_lines(1), filename=name)
    assert refused.value.param == "file"
    assert_nothing_is_kept(database, blobs)


def test_a_file_of_exactly_the_limit_is_taken_and_a_byte_more_is_not(
    database: Database, blobs: LocalBlobStore
) -> None:
    data = chat_lines(2)
    with pytest.raises(TooLarge):
        upload(database, blobs, data, max_bytes=len(data) - 1)
    assert_nothing_is_kept(database, blobs)
    assert upload(database, blobs, data, max_bytes=len(data)).size_bytes == len(data)


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt, TuneryError])
def test_an_upload_broken_off_leaves_nothing(
    database: Database, blobs: LocalBlobStore, error: type[BaseException]
) -> None:
    with pytest.raises(error), receive(blobs, OURS, 10**6) as incoming:  # noqa: PT012
        incoming.write(chat_line())
        assert len(list(blobs._temporary.iterdir())) == 1
        raise error("gone")
    assert_nothing_is_kept(database, blobs)


def test_an_upload_whose_row_cannot_be_written_leaves_nothing(
    sqlite_url: str, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    with opened(sqlite_url) as database:
        with opened(sqlite_url) as other, other.write(), pytest.raises(Unavailable):
            upload(database, blobs, chat_lines(1))
        assert_nothing_is_kept(database, blobs)


def test_an_error_after_the_row_was_written_keeps_row_and_bytes(
    database: Database, blobs: LocalBlobStore
) -> None:
    data = chat_lines(1)
    kept: list[StoredFile] = []
    with pytest.raises(ConnectionError), receive(blobs, OURS, 10**6) as incoming:  # noqa: PT012
        incoming.write(data)
        kept.append(incoming.finish(database, OURS, FINE_TUNE, "train.jsonl"))
        raise ConnectionError
    assert blobs.read(kept[0].blob_key) == data
    with database.read() as tx:
        assert tx.files(OURS).get(kept[0].id) == kept[0]


def test_a_file_expires_when_it_was_asked_to(database: Database, blobs: LocalBlobStore) -> None:
    file = upload(database, blobs, chat_lines(1), expires_after_s=7200)
    assert file.expires_at == file.created_at + 7200
    assert upload(database, blobs, chat_lines(1)).expires_at is None
    batch = upload(database, blobs, chat_lines(1), purpose=FilePurpose.BATCH)
    assert batch.expires_at == batch.created_at + 2_592_000
    with database.read() as tx:
        assert tx.files(OURS).get(file.id) == file


def test_the_same_request_under_a_key_makes_one_file_and_keeps_its_bytes_once(
    database: Database, blobs: LocalBlobStore
) -> None:
    key = OnceKey(b"k" * 32, b"r" * 32)
    file = upload(database, blobs, chat_lines(2), once=key)
    with pytest.raises(AlreadyDone) as done:
        upload(database, blobs, chat_lines(2), once=key)
    assert done.value.object_id == file.id
    with pytest.raises(Conflict, match="Idempotency-Key"):
        upload(database, blobs, chat_lines(3), once=OnceKey(b"k" * 32, b"s" * 32))
    assert list(blobs.keys(OURS.project_id)) == [file.blob_key]
    with database.write() as tx:
        page = tx.files(OURS).page(purpose=None, after=None, limit=9, order="asc")
        assert page.items == (file,)
        assert tx.queue.claim([TaskKind.CHECK_FILE], 60) is not None
        assert tx.queue.claim([TaskKind.CHECK_FILE], 60) is None


@pytest.mark.parametrize("known", ["before the bytes", "after the bytes"])
def test_a_batch_file_over_its_own_limit_is_refused_however_late_its_purpose_is_told(
    database: Database, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    monkeypatch.setattr(domain_files, "MAX_BATCH_BYTES", 100)
    with (  # noqa: PT012 - one of two calls
        pytest.raises(TooLarge, match="larger than 100 bytes"),
        receive(blobs, OURS, 10**6) as incoming,
    ):
        if known == "before the bytes":
            incoming.expect(FilePurpose.BATCH)
        incoming.write(chat_lines(2))
        incoming.finish(database, OURS, FilePurpose.BATCH, "batch.jsonl")
    assert_nothing_is_kept(database, blobs)
    assert len(chat_lines(2)) > 100 > len(chat_line())
    assert upload(database, blobs, chat_line(), purpose=FilePurpose.BATCH).size_bytes < 100
    assert upload(database, blobs, chat_lines(2)).size_bytes > 100


def test_what_is_done_with_the_row_is_undone_with_it(
    database: Database, blobs: LocalBlobStore
) -> None:
    def also(tx: Transaction, file: StoredFile) -> None:
        tx.files(OURS).add(dataclasses.replace(file, id="file-other"))
        raise ConnectionError

    with pytest.raises(ConnectionError), receive(blobs, OURS, 10**6) as incoming:  # noqa: PT012
        incoming.write(chat_lines(1))
        incoming.finish(database, OURS, FINE_TUNE, "train.jsonl", also=also)
    assert_nothing_is_kept(database, blobs)
