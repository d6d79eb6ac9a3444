"""A file comes in: streamed to the blob store, checked for its form, and made known.

The blob is durable before its row exists; row and next task are one transaction.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tunery.datasets.reader import BadLine, Line, LineSplitter, hint, parse
from tunery.domain.errors import InvalidRequest, TooLarge
from tunery.domain.files import (
    JSONL_PURPOSES,
    FilePurpose,
    FileStatus,
    StoredFile,
    expiry_of,
    size_limit,
)
from tunery.domain.ids import new_id
from tunery.domain.once import OnceKey
from tunery.domain.ports.blobs import BlobStore, BlobWriter
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

MAX_FILENAME = 255


def check_filename(filename: str, param: str) -> None:
    """Raise InvalidRequest for a name that no file can have."""
    if not 1 <= len(filename) <= MAX_FILENAME or "\0" in filename:
        raise InvalidRequest(
            f"The file's name has {len(filename)} characters; it needs 1 to {MAX_FILENAME},"
            " and no NUL among them.",
            param=param,
        )


class Upload:
    """A file on its way in. The purpose may become known only after the bytes."""

    def __init__(
        self, blobs: BlobStore, writer: BlobWriter, file_id: str, blob_key: str, max_bytes: int
    ) -> None:
        self._blobs = blobs
        self._writer = writer
        self._id = file_id
        self._blob_key = blob_key
        self._max_bytes = max_bytes
        self._digest = hashlib.sha256()
        self._splitter = LineSplitter()
        self._bad: Line | None = None
        self._why = ""
        self._lines = 0
        self._expects_jsonl = True  # until the purpose says otherwise
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes so far."""
        return self._digest.hexdigest()

    def expect(self, purpose: FilePurpose) -> None:
        """Hold the bytes to what their purpose asks for, those that have come included."""
        self._expects_jsonl = purpose in JSONL_PURPOSES
        self._max_bytes = size_limit(purpose, self._max_bytes)
        self._check_size()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; raise TooLarge over the size limit."""
        self.size_bytes += len(chunk)
        self._check_size()
        self._digest.update(chunk)
        self._writer.write(chunk)
        if self._expects_jsonl and self._bad is None:
            self._look_at(self._splitter.feed(chunk))

    def finish(
        self,
        database: Database,
        tenant: Tenant,
        purpose: FilePurpose,
        filename: str,
        *,
        expires_after_s: int | None = None,
        once: OnceKey | None = None,
        also: Callable[[Transaction, StoredFile], None] | None = None,
    ) -> StoredFile:
        """Make the file durable and known; a training file is queued to be checked.

        `also` is done in the transaction that makes it known. Raises AlreadyDone under a known key,
        and then nothing of the new bytes is kept.
        """
        check_filename(filename, "file")
        self.expect(purpose)
        if self.size_bytes == 0:
            raise InvalidRequest(f"File {filename[:80]!r} is empty.", param="file")
        if purpose in JSONL_PURPOSES:
            self._require_jsonl()
        checked = purpose is FilePurpose.FINE_TUNE
        now = int(time.time())
        file = StoredFile(
            id=self._id,
            filename=filename,
            purpose=purpose,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            blob_key=self._blob_key,
            status=FileStatus.UPLOADED if checked else FileStatus.PROCESSED,
            status_details=None,
            created_at=now,
            expires_at=expiry_of(purpose, now, expires_after_s),
        )
        self._writer.commit()
        try:
            with database.write() as tx:
                tx.once(tenant).record(once, file.id, now)
                if also is not None:
                    also(tx, file)
                tx.files(tenant).add(file)
                if checked:
                    tx.queue.add(tenant, TaskKind.CHECK_FILE, file.id)
        except Exception:
            with database.read() as tx:  # the row may stand although its writer heard an error
                known = tx.files(tenant).get(file.id)
            if known is None:
                self._blobs.delete(self._blob_key)
            raise
        return file

    def _check_size(self) -> None:
        if self.size_bytes > self._max_bytes:
            raise TooLarge(
                f"The file is larger than {self._max_bytes} bytes; split it into smaller files.",
                param="file",
                code="file_too_large",
            )

    def _require_jsonl(self) -> None:
        if self._bad is None:
            self._look_at(self._splitter.close())
        if self._bad is not None:
            raise InvalidRequest(
                "Expected file to have JSONL format, where every line is a JSON dictionary. Line"
                f" {self._bad.number} is not a dictionary (HINT: line starts with:"
                f' "{hint(self._bad)}"). The reason: {self._why}.'
            )
        if not self._lines:
            raise InvalidRequest("Expected file to have JSONL format, but every line is blank.")

    def _look_at(self, lines: Iterator[Line]) -> None:
        for line in lines:
            self._lines += 1
            try:
                parse(line)
            except BadLine as error:
                self._bad, self._why = line, str(error)
                return


@contextmanager
def receive(blobs: BlobStore, tenant: Tenant, max_bytes: int) -> Iterator[Upload]:
    """Open an upload; leaving the block without `finish` keeps nothing of it."""
    file_id = new_id("file-")
    blob_key = f"{tenant.project_id}/files/{file_id}"
    with blobs.writer(blob_key) as writer:
        yield Upload(blobs, writer, file_id, blob_key, max_bytes)
