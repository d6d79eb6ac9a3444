"""A file that comes in parts: each part is durable when it is answered, the file when all are.

The file is made of its parts on the same way as one that is uploaded whole. Its row, its next task
and the upload's end are one transaction, so two completions make one file, and a crash makes none.
Parts of an upload that has ended are removed at once, or by the sweep after a crash.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tunery.domain.errors import InvalidRequest, NotFound, TooLarge, TuneryError
from tunery.domain.files import FilePurpose, StoredFile, size_limit
from tunery.domain.ids import new_id
from tunery.domain.once import OnceKey
from tunery.domain.ports.blobs import BlobStore, BlobWriter
from tunery.domain.tenants import Tenant
from tunery.domain.uploads import (
    LIFETIME_S,
    MAX_PART_BYTES,
    MAX_PARTS,
    MAX_UPLOAD_BYTES,
    MultipartUpload,
    UploadPart,
    UploadStatus,
    check_mime_type,
)
from tunery.services.uploads import check_filename, receive
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

GRACE_S = 600  # a completion that began in time may still be reading the parts
_SWEPT_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What an upload is created with."""

    filename: str
    purpose: FilePurpose
    mime_type: str
    size_bytes: int
    file_expires_after_s: int | None


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload, and the file that it has become, as long as that is there."""

    upload: MultipartUpload
    file: StoredFile | None


class _Ended(Exception):
    """The upload has ended while its parts were put together."""


def create_upload(
    database: Database,
    tenant: Tenant,
    request: UploadRequest,
    max_file_bytes: int,
    once: OnceKey | None = None,
) -> UploadView:
    """Make a pending upload. Raises AlreadyDone under a known key."""
    check_filename(request.filename, "filename")
    check_mime_type(request.mime_type, request.purpose)
    limit = _limit(request.purpose, max_file_bytes)
    if request.size_bytes > limit:
        raise InvalidRequest(
            f"Invalid value for 'bytes': got {request.size_bytes}, needed at most {limit} for"
            f" purpose '{request.purpose}'.",
            param="bytes",
            code="invalid_value",
        )
    now = int(time.time())
    upload = MultipartUpload(
        id=new_id("upload_"),
        filename=request.filename,
        purpose=request.purpose,
        mime_type=request.mime_type,
        size_bytes=request.size_bytes,
        status=UploadStatus.PENDING,
        file_id=None,
        completion_digest=None,
        file_expires_after_s=request.file_expires_after_s,
        created_at=now,
        expires_at=now + LIFETIME_S,
    )
    with database.write() as tx:
        tx.once(tenant).record(once, upload.id, now)
        tx.uploads(tenant).add(upload)
    return UploadView(upload, None)


def get_upload(database: Database, tenant: Tenant, upload_id: str) -> UploadView:
    """Return an upload."""
    with database.read() as tx:
        return _view(tx, tenant, _find(tx, tenant, upload_id))


def require_pending(database: Database, tenant: Tenant, upload_id: str) -> None:
    """Raise NotFound, or InvalidRequest where the upload takes no more parts."""
    with database.read() as tx:
        _require_pending(_find(tx, tenant, upload_id))


def get_part(database: Database, tenant: Tenant, part_id: str) -> UploadPart:
    """Return a part of an upload that has not ended."""
    with database.read() as tx:
        part = tx.uploads(tenant).part(part_id)
    if part is None:
        raise NotFound(f"No such UploadPart object: {part_id[:200]}", param="id")
    return part


class IncomingPart:
    """A part on its way in."""

    def __init__(self, blobs: BlobStore, writer: BlobWriter, part_id: str, blob_key: str) -> None:
        self._blobs = blobs
        self._writer = writer
        self._id = part_id
        self._blob_key = blob_key
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes so far."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; raise TooLarge over the size limit."""
        self._size_bytes += len(chunk)
        if self._size_bytes > MAX_PART_BYTES:
            raise TooLarge(
                f"The part is larger than {MAX_PART_BYTES} bytes; send it in smaller parts.",
                param="data",
                code="part_too_large",
            )
        self._digest.update(chunk)
        self._writer.write(chunk)

    def finish(
        self, database: Database, tenant: Tenant, upload_id: str, once: OnceKey | None = None
    ) -> UploadPart:
        """Make the part durable and known. Raises AlreadyDone under a known key."""
        if self._size_bytes == 0:
            raise InvalidRequest("The part is empty.", param="data")
        part = UploadPart(
            id=self._id,
            upload_id=upload_id,
            size_bytes=self._size_bytes,
            sha256=self.sha256,
            blob_key=self._blob_key,
            created_at=int(time.time()),
        )
        self._writer.commit()
        try:
            with database.write() as tx:
                tx.once(tenant).record(once, part.id, part.created_at)
                _require_pending(_find(tx, tenant, upload_id, lock=True))
                _require_room(tx, tenant, part)
                tx.uploads(tenant).add_part(part)
        except Exception:
            with database.read() as tx:  # the row may stand although its writer heard an error
                known = tx.uploads(tenant).part(part.id)
            if known is None:
                self._blobs.delete(self._blob_key)
            raise
        return part


@contextmanager
def receive_part(blobs: BlobStore, tenant: Tenant) -> Iterator[IncomingPart]:
    """Open a part; leaving the block without `finish` keeps nothing of it."""
    part_id = new_id("part_")
    blob_key = f"{tenant.project_id}/parts/{part_id}"
    with blobs.writer(blob_key) as writer:
        yield IncomingPart(blobs, writer, part_id, blob_key)


def complete_upload(
    database: Database,
    blobs: BlobStore,
    tenant: Tenant,
    upload_id: str,
    part_ids: Sequence[str],
    md5: str | None,
    max_file_bytes: int,
    once: OnceKey | None = None,
) -> UploadView:
    """Make the upload's file of these parts, in this order.

    A repeat of a completion that succeeded returns what that one did.
    """
    wanted = None if md5 is None else md5.lower()
    digest = hashlib.sha256(json.dumps([*part_ids, wanted]).encode()).digest()
    with database.read() as tx:
        upload = _find(tx, tenant, upload_id)
        if upload.status is UploadStatus.COMPLETED:
            return _repeated(tx, tenant, upload, digest)
        _require_pending(upload)
        parts = _chosen(tx.uploads(tenant).parts(upload_id), part_ids)
    total = sum(part.size_bytes for part in parts)
    if total != upload.size_bytes:
        raise InvalidRequest(
            f"The parts have {total} bytes together; the upload was created with"
            f" {upload.size_bytes}. Complete it with other parts, or add what is missing.",
            param="part_ids",
            code="upload_size_mismatch",
        )
    try:
        _assemble(database, blobs, tenant, upload, parts, wanted, digest, max_file_bytes, once)
    except _Ended:
        with database.read() as tx:
            upload = _find(tx, tenant, upload_id)
            if upload.status is UploadStatus.COMPLETED:
                return _repeated(tx, tenant, upload, digest)
            _require_pending(upload)
        raise TuneryError(
            f"The bytes of upload {upload_id} are not complete on this server; upload them again.",
            code="upload_damaged",
        ) from None
    _remove_parts(database, blobs, tenant, upload_id)
    return get_upload(database, tenant, upload_id)


def cancel_upload(
    database: Database, blobs: BlobStore, tenant: Tenant, upload_id: str
) -> UploadView:
    """End a pending upload and remove its parts; one that is cancelled already stays so."""
    with database.write() as tx:
        upload = _find(tx, tenant, upload_id, lock=True)
        if upload.status is not UploadStatus.CANCELLED:
            _require_pending(upload)
            tx.uploads(tenant).cancel(upload_id)
    _remove_parts(database, blobs, tenant, upload_id)
    return get_upload(database, tenant, upload_id)


def sweep(database: Database, blobs: BlobStore, now: int) -> int:
    """Note which uploads have expired, and remove the parts of all that have ended.

    The bytes go before their rows: whatever a crash leaves, the next sweep still knows of.
    """
    with database.write() as tx:
        changed = tx.expire_uploads(now - GRACE_S)
    while True:
        with database.read() as tx:
            parts = tx.left_parts(_SWEPT_AT_ONCE)
        if not parts:
            return changed
        for part in parts:
            blobs.delete(part.blob_key)
        with database.write() as tx:
            tx.forget_parts(parts)


def _limit(purpose: FilePurpose, max_file_bytes: int) -> int:
    """Return the most bytes of a file: 8 GB, but for those that are read line by line."""
    if purpose in (FilePurpose.FINE_TUNE, FilePurpose.BATCH):
        return size_limit(purpose, min(max_file_bytes, MAX_UPLOAD_BYTES))
    return MAX_UPLOAD_BYTES


def _find(
    tx: Transaction, tenant: Tenant, upload_id: str, *, lock: bool = False
) -> MultipartUpload:
    upload = tx.uploads(tenant).get(upload_id, lock=lock)
    if upload is None:
        raise NotFound(f"No such Upload object: {upload_id[:200]}", param="id")
    return upload


def _view(tx: Transaction, tenant: Tenant, upload: MultipartUpload) -> UploadView:
    file = None if upload.file_id is None else tx.files(tenant).visible(upload.file_id)
    return UploadView(upload, file)


def _require_pending(upload: MultipartUpload) -> None:
    status = upload.status_at(int(time.time()))
    if status is not UploadStatus.PENDING:
        raise InvalidRequest(
            f"Upload {upload.id} is {status}; it needs to be pending. Create a new upload.",
            code="upload_not_pending",
        )


def _require_room(tx: Transaction, tenant: Tenant, part: UploadPart) -> None:
    count, total = tx.uploads(tenant).part_totals(part.upload_id)
    if count >= MAX_PARTS or total + part.size_bytes > MAX_UPLOAD_BYTES:
        raise InvalidRequest(
            f"Upload {part.upload_id} has {count} parts of {total} bytes together; it takes"
            f" {MAX_PARTS} parts and {MAX_UPLOAD_BYTES} bytes.",
            param="data",
            code="upload_full",
        )


def _chosen(parts: Sequence[UploadPart], part_ids: Sequence[str]) -> list[UploadPart]:
    known = {part.id: part for part in parts}
    if len(set(part_ids)) != len(part_ids):
        raise InvalidRequest(
            "A part stands twice in 'part_ids'; name each once, in order.",
            param="part_ids",
            code="invalid_value",
        )
    for part_id in part_ids:
        if part_id not in known:
            raise InvalidRequest(
                f"This upload has no part {part_id[:200]}.", param="part_ids", code="invalid_value"
            )
    return [known[part_id] for part_id in part_ids]


def _repeated(
    tx: Transaction, tenant: Tenant, upload: MultipartUpload, digest: bytes
) -> UploadView:
    if upload.completion_digest != digest:
        raise InvalidRequest(
            f"Upload {upload.id} is completed, with other 'part_ids' or another 'md5' than these.",
            code="upload_not_pending",
        )
    return _view(tx, tenant, upload)


def _assemble(
    database: Database,
    blobs: BlobStore,
    tenant: Tenant,
    upload: MultipartUpload,
    parts: Sequence[UploadPart],
    md5: str | None,
    digest: bytes,
    max_file_bytes: int,
    once: OnceKey | None,
) -> None:
    """Write the parts, one after the other, as one file; raise _Ended where another was faster."""

    def end(tx: Transaction, file: StoredFile) -> None:
        if not tx.uploads(tenant).complete(upload.id, file.id, digest):
            raise _Ended

    found = hashlib.md5(usedforsecurity=False)
    with receive(blobs, tenant, _limit(upload.purpose, max_file_bytes)) as incoming:
        incoming.expect(upload.purpose)
        try:
            for part in parts:
                for chunk in blobs.stream(part.blob_key):
                    incoming.write(chunk)
                    found.update(chunk)
        except NotFound:  # its parts are removed only once it has ended
            raise _Ended from None
        if md5 is not None and md5 != found.hexdigest():
            raise InvalidRequest(
                f"The parts' MD5 is {found.hexdigest()}; the request says {md5[:32]}.",
                param="md5",
                code="invalid_checksum",
            )
        incoming.finish(
            database,
            tenant,
            upload.purpose,
            upload.filename,
            expires_after_s=upload.file_expires_after_s,
            once=once,
            also=end,
        )


def _remove_parts(database: Database, blobs: BlobStore, tenant: Tenant, upload_id: str) -> None:
    """Remove the parts of an upload that has ended; what stays for now, the sweep removes."""
    with suppress(TuneryError, OSError):
        with database.read() as tx:
            parts = tx.uploads(tenant).parts(upload_id)
        for part in parts:
            blobs.delete(part.blob_key)
        with database.write() as tx:
            tx.uploads(tenant).drop_parts(upload_id)
