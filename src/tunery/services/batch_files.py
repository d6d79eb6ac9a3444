"""A batch ends: its answers become its output file and its error file.

Both are written in the order of the input's lines, in memory that does not grow with them. The
blobs are durable before their rows; rows, status and the answers' removal are one transaction. A
crash before it leaves blobs that the next attempt removes.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import orjson

from tunery.datasets.batch_requests import questions
from tunery.domain.batches import (
    TERMINAL,
    AnsweredLine,
    Batch,
    BatchEvent,
    BatchStatus,
    not_run,
)
from tunery.domain.errors import Conflict
from tunery.domain.files import FilePurpose, FileStatus, StoredFile
from tunery.domain.ids import new_id
from tunery.domain.ports.blobs import BlobStore, BlobWriter
from tunery.domain.tasks import LeaseLost, Task
from tunery.services.batches import end
from tunery.services.validation import NotYet
from tunery.storage.database import Database

_PAGE = 4  # answers in memory at a time: one of many vectors has 16 MB
_NOT_RUN = {
    BatchEvent.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    BatchEvent.CANCELLED: (
        "batch_cancelled",
        "This request was not executed because the batch was cancelled.",
    ),
    BatchEvent.FAILED: (
        "batch_failed",
        "This request was not executed because the batch failed.",
    ),
}


def end_batch(database: Database, blobs: BlobStore, task: Task) -> None:
    """Write the files of a batch that is to end, and end it.

    Raises NotYet where it was cancelled meanwhile: its files are to say so.
    """
    tenant = task.tenant
    with database.read() as tx:
        batch = tx.batches(tenant).get(task.subject)
        source = None if batch is None else tx.files(tenant).get(batch.input_file_id)
    if batch is None or batch.status in TERMINAL:
        with database.write() as tx:
            tx.queue.finish(task)
        return
    event = _event(batch)
    # A folder an attempt: one that wakes up late touches no other's files.
    folder = f"{tenant.project_id}/batches/{batch.id}/attempt-{task.fence}"
    with ExitStack() as stack:
        output = _Output(stack, blobs, f"{folder}/{new_id('file-')}")
        errors = _Output(stack, blobs, f"{folder}/{new_id('file-')}")
        unanswered = None if event is BatchEvent.COMPLETED or source is None else source.blob_key
        for line in _lines(database, blobs, task, batch, event, unanswered):
            (output if line.succeeded else errors).add(line)
        stored = [
            written.commit(f"{batch.id}_{name}.jsonl", batch.output_expires_after_s)
            for written, name in ((output, "output"), (errors, "error"))
        ]
    try:
        with database.write() as tx:
            tx.queue.finish(task)
            for file in stored:
                if file is not None:
                    tx.files(tenant).add(file)
            ids = [None if file is None else file.id for file in stored]
            end(tx, tenant, batch, event, output_file_id=ids[0], error_file_id=ids[1])
    except LeaseLost:
        blobs.delete_prefix(folder)
        raise
    except Conflict as error:
        raise NotYet(error.message) from None
    _remove_others(blobs, f"{tenant.project_id}/batches/{batch.id}", stored)


def _remove_others(blobs: BlobStore, folder: str, stored: Sequence[StoredFile | None]) -> None:
    """Remove what attempts left that were killed, once the files that count are known."""
    kept = {file.blob_key for file in stored if file is not None}
    for key in list(blobs.keys(folder)):
        if key not in kept:
            blobs.delete(key)


def _event(batch: Batch) -> BatchEvent:
    """Return what a batch comes to its end by."""
    if batch.status is BatchStatus.CANCELLING:
        return BatchEvent.CANCELLED
    if batch.errors:
        return BatchEvent.FAILED
    return BatchEvent.COMPLETED if batch.status is BatchStatus.FINALIZING else BatchEvent.EXPIRED


def _lines(
    database: Database,
    blobs: BlobStore,
    task: Task,
    batch: Batch,
    event: BatchEvent,
    unanswered: str | None,
) -> Iterator[AnsweredLine]:
    """Yield every answer and, from the input file, every line that has none, in order."""
    answers = _answers(database, task)
    if unanswered is None or not batch.total:  # nothing of an unchecked file was accepted
        yield from answers
        return
    answer = next(answers, None)
    for question in questions(blobs.stream(unanswered)):
        if answer is not None and answer.line == question.line:
            yield answer
            answer = next(answers, None)
        else:
            yield not_run(batch.id, question.line, question.custom_id, _NOT_RUN[event])


def _answers(database: Database, task: Task) -> Iterator[AnsweredLine]:
    """Yield the answers in the order of lines, a page a transaction."""
    last = 0
    while True:
        with database.read() as tx:
            page = tx.batches(task.tenant).answers_after(task.subject, last, _PAGE)
        if not page:
            return
        yield from page
        last = page[-1].line


class _Output:
    """A file of answers in the making; without any there is no file."""

    def __init__(self, stack: ExitStack, blobs: BlobStore, blob_key: str) -> None:
        self._stack = stack
        self._blobs = blobs
        self._blob_key = blob_key
        self._writer: BlobWriter | None = None
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def add(self, line: AnsweredLine) -> None:
        """Append an answer."""
        if self._writer is None:
            self._writer = self._stack.enter_context(self._blobs.writer(self._blob_key))
        data = orjson.dumps(line.output) + b"\n"
        self._writer.write(data)
        self._digest.update(data)
        self._size_bytes += len(data)

    def commit(self, filename: str, expires_after_s: int | None) -> StoredFile | None:
        """Make the blob durable and return the row that is to name it."""
        if self._writer is None:
            return None
        self._writer.commit()
        now = int(time.time())
        return StoredFile(
            id=self._blob_key.rpartition("/")[2],
            filename=filename,
            purpose=FilePurpose.BATCH_OUTPUT,
            size_bytes=self._size_bytes,
            sha256=self._digest.hexdigest(),
            blob_key=self._blob_key,
            status=FileStatus.PROCESSED,
            status_details=None,
            created_at=now,
            expires_at=None if expires_after_s is None else now + expires_after_s,
        )
