"""One transaction, and the repositories that work inside it.

A repository of tenants' objects needs a Tenant: a query that forgets whose rows it may see does
not type-check.
"""

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from tunery.domain.tenants import Tenant
from tunery.storage.queue import Queue
from tunery.storage.repositories.accounts import AccountRepository
from tunery.storage.repositories.batches import BatchRepository, overdue_batches
from tunery.storage.repositories.files import FileRepository, remove_expired_files
from tunery.storage.repositories.jobs import JobRepository, unfinished_jobs
from tunery.storage.repositories.labels import LabelRepository
from tunery.storage.repositories.models import ModelRepository
from tunery.storage.repositories.once import OnceRepository, forget_old_keys
from tunery.storage.repositories.permissions import PermissionRepository
from tunery.storage.repositories.responses import ResponseRepository, remove_expired_responses
from tunery.storage.repositories.stored_completions import StoredCompletionRepository
from tunery.storage.repositories.uploads import (
    LeftPart,
    UploadRepository,
    expire_uploads,
    forget_parts,
    left_parts,
)
from tunery.storage.repositories.usage import UsageRepository
from tunery.storage.repositories.webhooks import DeliveryQueue, WebhookRepository


class Transaction:
    """Gives the repositories of one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def files(self, tenant: Tenant) -> FileRepository:
        """Return the tenant's files."""
        return FileRepository(self._connection, tenant)

    def remove_expired_files(self, now: int, limit: int) -> list[str]:
        """Remove files of every project that are past their time; return their blobs' keys."""
        return remove_expired_files(self._connection, now, limit)

    def uploads(self, tenant: Tenant) -> UploadRepository:
        """Return the tenant's uploads in parts."""
        return UploadRepository(self._connection, tenant)

    def expire_uploads(self, before: int) -> int:
        """Mark every project's pending uploads that expired by `before`; return how many."""
        return expire_uploads(self._connection, before)

    def left_parts(self, limit: int) -> Sequence[LeftPart]:
        """Return parts, of every project, whose uploads have ended."""
        return left_parts(self._connection, limit)

    def forget_parts(self, parts: Sequence[LeftPart]) -> None:
        """Remove the rows of parts whose blobs are gone."""
        forget_parts(self._connection, parts)

    def jobs(self, tenant: Tenant) -> JobRepository:
        """Return the tenant's jobs."""
        return JobRepository(self._connection, tenant)

    def unfinished_jobs(self) -> list[tuple[str, str]]:
        """Return project and id of every project's jobs that have not ended."""
        return unfinished_jobs(self._connection)

    def batches(self, tenant: Tenant) -> BatchRepository:
        """Return the tenant's batches."""
        return BatchRepository(self._connection, tenant)

    def overdue_batches(self, now: int) -> list[tuple[Tenant, str]]:
        """Return every project's batches that are to end and that nobody works on."""
        return overdue_batches(self._connection, now)

    def models(self, tenant: Tenant) -> ModelRepository:
        """Return the tenant's tuned models."""
        return ModelRepository(self._connection, tenant)

    def permissions(self, organization_id: str) -> PermissionRepository:
        """Return who may use which models in an organization."""
        return PermissionRepository(self._connection, organization_id)

    def usage(self, tenant: Tenant) -> UsageRepository:
        """Return the tenant's ledger."""
        return UsageRepository(self._connection, tenant)

    def webhooks(self, tenant: Tenant) -> WebhookRepository:
        """Return the tenant's webhook endpoints and deliveries."""
        return WebhookRepository(self._connection, tenant)

    def deliveries(
        self, *, busy_projects: Sequence[str], busy_endpoints: Sequence[str]
    ) -> DeliveryQueue:
        """Return every tenant's due deliveries, save those of these projects and endpoints."""
        return DeliveryQueue(self._connection, busy_projects, busy_endpoints)

    def stored_completions(self, tenant: Tenant) -> StoredCompletionRepository:
        """Return the tenant's stored chat completions."""
        return StoredCompletionRepository(self._connection, tenant)

    def responses(self, tenant: Tenant) -> ResponseRepository:
        """Return the tenant's stored responses."""
        return ResponseRepository(self._connection, tenant)

    def remove_expired_responses(self, now: int) -> int:
        """Remove every project's responses that are past their time."""
        return remove_expired_responses(self._connection, now)

    def labels(self, tenant: Tenant) -> LabelRepository:
        """Return the metadata that the tenant's objects are found by."""
        return LabelRepository(self._connection, tenant)

    def once(self, tenant: Tenant) -> OnceRepository:
        """Return the tenant's Idempotency-Keys."""
        return OnceRepository(self._connection, tenant)

    def forget_old_keys(self, now: int) -> int:
        """Remove every project's Idempotency-Keys that are past their time."""
        return forget_old_keys(self._connection, now)

    @property
    def accounts(self) -> AccountRepository:
        """Return organizations, projects and keys."""
        return AccountRepository(self._connection)

    @property
    def queue(self) -> Queue:
        """Return the queue of background tasks."""
        return Queue(self._connection)
