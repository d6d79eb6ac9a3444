"""Which creations of a tenant were asked for under which Idempotency-Key, for a day."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from tunery.domain.errors import Conflict
from tunery.domain.once import KEPT_S, AlreadyDone, OnceKey
from tunery.domain.tenants import Tenant
from tunery.storage.tables import idempotency_keys

CREATED = 200  # what OpenAI answers a creation with; a refused one is not remembered


class OnceRepository:
    """The keys of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def record(self, once: OnceKey | None, object_id: str, now: int) -> None:
        """Note that `object_id` is made for this key, in the transaction that makes it.

        Raises AlreadyDone where the same request has made its object, and Conflict where the key
        came with another one. A request that runs at the same moment is waited for. Without a key
        nothing is noted.
        """
        if once is None:
            return
        self._connection.execute(
            idempotency_keys.delete().where(
                *self._is(once), idempotency_keys.c.created_at <= now - KEPT_S
            )
        )
        insert = sqlite_insert if self._connection.dialect.name == "sqlite" else postgresql_insert
        added = self._connection.execute(
            insert(idempotency_keys)
            .values(
                project_id=self._project_id,
                key_digest=once.key_digest,
                request_digest=once.request_digest,
                status=CREATED,
                object_id=object_id,
                created_at=now,
            )
            .on_conflict_do_nothing(index_elements=["project_id", "key_digest"])
            .returning(idempotency_keys.c.object_id)  # PostgreSQL's driver tells no rowcount here
        )
        if added.one_or_none() is None:
            self.check(once, now)

    def check(self, once: OnceKey, now: int) -> None:
        """Raise AlreadyDone or Conflict where the key is known; return where it is not."""
        row = self._connection.execute(
            sa.select(idempotency_keys).where(
                *self._is(once), idempotency_keys.c.created_at > now - KEPT_S
            )
        ).one_or_none()
        if row is None:
            return
        if row.request_digest != once.request_digest:
            raise Conflict(
                "This Idempotency-Key came with another request before; use a new key for each"
                " request.",
                param="Idempotency-Key",
                code="idempotency_key_reused",
            )
        raise AlreadyDone(row.object_id)

    def _is(self, once: OnceKey) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            idempotency_keys.c.project_id == self._project_id,
            idempotency_keys.c.key_digest == once.key_digest,
        )


def forget_old_keys(connection: Connection, now: int) -> int:
    """Remove every project's keys that are older than they are kept; return how many."""
    return connection.execute(
        idempotency_keys.delete().where(idempotency_keys.c.created_at <= now - KEPT_S)
    ).rowcount
