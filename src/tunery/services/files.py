"""A tenant's files: listed, read, deleted."""

import base64
from collections.abc import Iterator

from tunery.domain.errors import Conflict, NotFound
from tunery.domain.files import FilePurpose, StoredFile
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tenants import Tenant
from tunery.storage.database import Database
from tunery.storage.repositories.files import Lock
from tunery.storage.repositories.paging import Order, Page
from tunery.storage.transaction import Transaction

_SWEPT_AT_ONCE = 20


def find_file(
    tx: Transaction, tenant: Tenant, file_id: str, *, lock: Lock | None = None
) -> StoredFile:
    """Return a file, or raise NotFound in OpenAI's words; an expired one is not there."""
    file = tx.files(tenant).visible(file_id, lock=lock)
    if file is None:
        raise NotFound(f"No such File object: {file_id[:200]}", param="id")
    return file


def get_file(database: Database, tenant: Tenant, file_id: str) -> StoredFile:
    """Return a file."""
    with database.read() as tx:
        return find_file(tx, tenant, file_id)


def list_files(
    database: Database,
    tenant: Tenant,
    *,
    purpose: FilePurpose | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[StoredFile]:
    """Return a page of files."""
    with database.read() as tx:
        return tx.files(tenant).page(purpose=purpose, after=after, limit=limit, order=order)


def file_content(
    database: Database, blobs: BlobStore, tenant: Tenant, file_id: str, *, results_as_base64: bool
) -> Iterator[bytes]:
    """Return the file's bytes in chunks; a result file's as base64 where asked, as OpenAI does."""
    file = get_file(database, tenant, file_id)
    if file.purpose is FilePurpose.FINE_TUNE_RESULTS and results_as_base64:
        return iter([base64.b64encode(blobs.read(file.blob_key))])
    return blobs.stream(file.blob_key)


def delete_file(database: Database, blobs: BlobStore, tenant: Tenant, file_id: str) -> None:
    """Remove a file; raise Conflict while a job or a batch needs it.

    OpenAI refuses this while a file is being checked. Here its check is given up, which harms
    nothing: its worker has lost the task, and writes no more. So a file can always be removed by
    its owner, also where no worker runs.
    """
    with database.write() as tx:
        tx.queue.drop(tenant, file_id)  # first: the check locks its task before the file
        file = find_file(tx, tenant, file_id, lock="exclusive")
        job_id = tx.jobs(tenant).unfinished_with_file(file_id)
        if job_id is not None:
            raise Conflict(
                f"File {file_id} is in use by job {job_id}; wait for it or cancel it first.",
                param="id",
                code="file_in_use",
            )
        batch_id = tx.batches(tenant).unfinished_with_file(file_id)
        if batch_id is not None:
            raise Conflict(
                f"File {file_id} is in use by batch {batch_id}; wait for it or cancel it first.",
                param="id",
                code="file_in_use",
            )
        tx.files(tenant).delete(file_id)
    blobs.delete(file.blob_key)


def remove_expired(database: Database, blobs: BlobStore, now: int) -> int:
    """Remove files that are past their time, with their bytes; return how many.

    The bytes go first, within the transaction: what a crash leaves is a row that nobody can see,
    and the next sweep takes it up again.
    """
    removed = 0
    while True:
        with database.write() as tx:
            keys = tx.remove_expired_files(now, _SWEPT_AT_ONCE)
            for key in keys:
                blobs.delete(key)
        removed += len(keys)
        if len(keys) < _SWEPT_AT_ONCE:
            return removed
