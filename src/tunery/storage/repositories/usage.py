"""A tenant's ledger: what was used, once a request."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from tunery.domain.tenants import Tenant
from tunery.domain.usage import UsageKind, UsageRecord
from tunery.storage.tables import usage

_KEY = ["project_id", "request_id"]
_INSERT = {  # made once: every answer waits for it
    "sqlite": sqlite_insert(usage).on_conflict_do_nothing(index_elements=_KEY),
    "postgresql": postgresql_insert(usage).on_conflict_do_nothing(index_elements=_KEY),
}


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """The sum of a kind of use."""

    kind: UsageKind
    requests: int
    input_tokens: int
    output_tokens: int
    cost_nanodollars: int


class UsageRepository:
    """The ledger of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def add(self, record: UsageRecord, now: int) -> None:
        """Write a line; the same request's second line is dropped."""
        self._connection.execute(
            _INSERT[self._connection.dialect.name],
            {
                "project_id": self._project_id,
                "request_id": record.request_id,
                "kind": record.kind,
                "model": record.model,
                "base": record.base,
                "key_id": record.key_id,
                "end_user": record.end_user,
                "input_tokens": record.input_tokens,
                "output_tokens": record.output_tokens,
                "cost_nanodollars": record.cost_nanodollars,
                "batch": int(record.batch),
                "created_at": now,
            },
        )

    def totals(self) -> list[UsageTotal]:
        """Return the sum of each kind of use."""
        rows = self._connection.execute(
            sa.select(
                usage.c.kind,
                sa.func.count(),
                sa.func.sum(usage.c.input_tokens),
                sa.func.sum(usage.c.output_tokens),
                sa.func.sum(usage.c.cost_nanodollars),
            )
            .where(usage.c.project_id == self._project_id)
            .group_by(usage.c.kind)
            .order_by(usage.c.kind)
        )
        return [UsageTotal(UsageKind(kind), *map(int, sums)) for kind, *sums in rows]
