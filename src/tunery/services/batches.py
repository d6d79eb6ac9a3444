"""Batches as their owners see them: created, listed, cancelled.

The key that made a batch is what its answers are charged to. It may be revoked while the batch
runs: what was accepted goes on, and its owner may cancel it with any other key of the project.
"""

import time
from dataclasses import dataclass

from tunery.domain.batches import (
    TERMINAL,
    WINDOW,
    WINDOW_S,
    Batch,
    BatchEvent,
    BatchStatus,
)
from tunery.domain.errors import Conflict, InvalidRequest, NotFound
from tunery.domain.files import MAX_BATCH_BYTES, FilePurpose
from tunery.domain.ids import new_id
from tunery.domain.once import OnceKey
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Caller, Tenant
from tunery.domain.webhooks import EventType
from tunery.services.webhooks import emit
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Page
from tunery.storage.transaction import Transaction

WAITING_TASKS = (TaskKind.CHECK_BATCH, TaskKind.RUN_BATCH)


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a batch is created with."""

    endpoint: str
    input_file_id: str
    metadata: dict[str, str] | None
    output_expires_after_s: int | None


def create_batch(
    database: Database, caller: Caller, request: BatchRequest, once: OnceKey | None = None
) -> Batch:
    """Accept a batch; its lines are checked by the worker. Raises AlreadyDone under a known key."""
    now = int(time.time())
    batch = Batch(
        id=new_id("batch_"),
        key_id=caller.key_id,
        endpoint=request.endpoint,
        input_file_id=request.input_file_id,
        completion_window=WINDOW,
        output_expires_after_s=request.output_expires_after_s,
        metadata=request.metadata,
        status=BatchStatus.VALIDATING,
        errors=(),
        model=None,
        output_file_id=None,
        error_file_id=None,
        total=0,
        completed=0,
        failed=0,
        input_tokens=0,
        output_tokens=0,
        created_at=now,
        expires_at=now + WINDOW_S,
    )
    with database.write() as tx:
        tx.once(caller.tenant).record(once, batch.id, now)
        _require_input_file(tx, caller.tenant, request.input_file_id)
        tx.batches(caller.tenant).add(batch)
        tx.queue.add(caller.tenant, TaskKind.CHECK_BATCH, batch.id)
    return batch


def find_batch(tx: Transaction, tenant: Tenant, batch_id: str, *, lock: bool = False) -> Batch:
    """Return a batch, or raise NotFound in OpenAI's words."""
    batch = tx.batches(tenant).get(batch_id, lock=lock)
    if batch is None:
        raise NotFound(f"No batch found with id '{batch_id[:200]}'.", param="batch_id")
    return batch


def get_batch(database: Database, tenant: Tenant, batch_id: str) -> Batch:
    """Return a batch."""
    with database.read() as tx:
        return find_batch(tx, tenant, batch_id)


def list_batches(
    database: Database, tenant: Tenant, *, after: str | None, limit: int
) -> Page[Batch]:
    """Return a page of batches, newest first."""
    with database.read() as tx:
        return tx.batches(tenant).page(after=after, limit=limit)


def cancel_batch(database: Database, tenant: Tenant, batch_id: str) -> Batch:
    """Stop a batch: its runner hears of it within seconds, then its files are written.

    Cancelling a batch that is being cancelled changes nothing.
    """
    with database.write() as tx:
        # Tasks are locked before batches, as a worker does. It may add the next one meanwhile.
        idle = tx.queue.drop_idle(tenant, WAITING_TASKS, batch_id)
        batch = find_batch(tx, tenant, batch_id, lock=True)
        idle = tx.queue.drop_idle(tenant, WAITING_TASKS, batch_id) or idle
        if batch.status in TERMINAL:
            raise Conflict(
                f"Batch {batch_id} has already {_ENDED_AS[batch.status]} and cannot be cancelled.",
                param="batch_id",
                code="batch_not_cancellable",
            )
        if batch.status is BatchStatus.FINALIZING:
            raise Conflict(
                f"Batch {batch_id} has answered every request and is writing its files; there is"
                " nothing left to cancel.",
                param="batch_id",
                code="batch_not_cancellable",
            )
        if batch.status is not BatchStatus.CANCELLING:
            tx.batches(tenant).advance(batch, BatchEvent.CANCELLING, int(time.time()))
        if idle:  # nobody works on it who could hear of it
            tx.queue.add(tenant, TaskKind.END_BATCH, batch_id)
        return find_batch(tx, tenant, batch_id)


_ENDED_AS = {
    BatchStatus.COMPLETED: "completed",
    BatchStatus.FAILED: "failed",
    BatchStatus.EXPIRED: "expired",
    BatchStatus.CANCELLED: "been cancelled",
}


# ---- for the worker's services


def end(
    tx: Transaction,
    tenant: Tenant,
    batch: Batch,
    event: BatchEvent,
    *,
    output_file_id: str | None = None,
    error_file_id: str | None = None,
) -> None:
    """Bring a batch to its end; its answers so far are in its files, or lost with it."""
    now = int(time.time())
    repository = tx.batches(tenant)
    repository.advance(
        batch, event, now, output_file_id=output_file_id, error_file_id=error_file_id
    )
    repository.drop_answers(batch.id)
    emit(tx, tenant, EventType(f"batch.{event}"), batch.id, now)


def _require_input_file(tx: Transaction, tenant: Tenant, file_id: str) -> None:
    file = tx.files(tenant).visible(file_id, lock="shared")
    if file is None:
        raise InvalidRequest(
            f"Invalid input_file_id: there is no file {file_id[:200]}. Upload one with purpose"
            " 'batch'.",
            param="input_file_id",
            code="invalid_file",
        )
    if file.purpose is not FilePurpose.BATCH:
        raise InvalidRequest(
            f"Invalid input_file_id: {file_id} has purpose '{file.purpose}'; it needs 'batch'.",
            param="input_file_id",
            code="invalid_file",
        )
    if file.size_bytes > MAX_BATCH_BYTES:
        raise InvalidRequest(
            f"Invalid input_file_id: {file_id} has {file.size_bytes} bytes; a batch takes"
            f" {MAX_BATCH_BYTES}. Split it into several batches.",
            param="input_file_id",
            code="file_too_large",
        )
