"""A tenant's webhook endpoints, the deliveries to them, and which delivery is next of all."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.tasks import Task, TaskKind
from tunery.domain.tenants import Tenant
from tunery.domain.webhooks import Delivery, Endpoint, EventType, OldSecret
from tunery.storage.queue import Queue
from tunery.storage.repositories.paging import Page, select_page
from tunery.storage.tables import projects, tasks, webhook_deliveries, webhook_endpoints

_KINDS = (TaskKind.DELIVER_WEBHOOK,)


class WebhookRepository:
    """The endpoints and deliveries of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def add(self, endpoint: Endpoint) -> None:
        """Insert an endpoint."""
        self._connection.execute(
            webhook_endpoints.insert().values(
                project_id=self._project_id,
                id=endpoint.id,
                created_at=endpoint.created_at,
                **_values(endpoint),
            )
        )

    def get(self, endpoint_id: str, *, lock: bool = False) -> Endpoint | None:
        """Return an endpoint; `lock` keeps others from changing it in this transaction."""
        query = sa.select(webhook_endpoints).where(*self._is(endpoint_id))
        row = self._connection.execute(query.with_for_update() if lock else query).one_or_none()
        return None if row is None else _endpoint(row)

    def page(self, *, after: str | None, limit: int) -> Page[Endpoint]:
        """Return a page of endpoints, newest first."""
        rows, more = select_page(
            self._connection,
            webhook_endpoints,
            [webhook_endpoints.c.project_id == self._project_id],
            after=after,
            limit=limit,
            order="desc",
        )
        return Page(tuple(_endpoint(row) for row in rows), more)

    def count(self) -> int:
        """Return how many endpoints there are, and keep others from adding one meanwhile."""
        self._connection.execute(
            sa.select(projects.c.seq).where(projects.c.id == self._project_id).with_for_update()
        )
        return self._connection.execute(
            sa.select(sa.func.count())
            .select_from(webhook_endpoints)
            .where(webhook_endpoints.c.project_id == self._project_id)
        ).scalar_one()

    def subscribed(self, event_type: EventType) -> Sequence[Endpoint]:
        """Return the endpoints that are to hear of this type of event."""
        rows = self._connection.execute(
            sa.select(webhook_endpoints)
            .where(webhook_endpoints.c.project_id == self._project_id)
            .order_by(webhook_endpoints.c.seq)
        )
        endpoints = (_endpoint(row) for row in rows)
        return [endpoint for endpoint in endpoints if event_type in endpoint.event_types]

    def change(self, endpoint: Endpoint) -> None:
        """Write an endpoint that was changed."""
        self._connection.execute(
            webhook_endpoints.update().where(*self._is(endpoint.id)).values(**_values(endpoint))
        )

    def delete(self, endpoint_id: str) -> bool:
        """Remove an endpoint and everything on its way to it; return whether it was there."""
        deliveries = (
            webhook_deliveries.c.project_id == self._project_id,
            webhook_deliveries.c.endpoint_id == endpoint_id,
        )
        self._connection.execute(  # tasks first, in the order in which a worker locks them
            tasks.delete().where(
                tasks.c.project_id == self._project_id,
                tasks.c.kind.in_(_KINDS),
                tasks.c.subject.in_(sa.select(webhook_deliveries.c.id).where(*deliveries)),
            )
        )
        self._connection.execute(webhook_deliveries.delete().where(*deliveries))
        deleted = self._connection.execute(webhook_endpoints.delete().where(*self._is(endpoint_id)))
        return deleted.rowcount == 1

    # ---- deliveries

    def add_delivery(self, delivery: Delivery) -> None:
        """Insert a delivery."""
        self._connection.execute(
            webhook_deliveries.insert().values(project_id=self._project_id, **asdict(delivery))
        )

    def delivery(self, delivery_id: str) -> Delivery | None:
        """Return a delivery."""
        row = self._connection.execute(
            sa.select(webhook_deliveries).where(*self._is_delivery(delivery_id))
        ).one_or_none()
        if row is None:
            return None
        return Delivery(
            id=row.id,
            endpoint_id=row.endpoint_id,
            event_id=row.event_id,
            event_type=EventType(row.event_type),
            body=row.body,
            attempts=row.attempts,
            created_at=row.created_at,
        )

    def count_attempt(self, delivery_id: str) -> None:
        """Note that a delivery was tried once more, in vain."""
        self._connection.execute(
            webhook_deliveries.update()
            .where(*self._is_delivery(delivery_id))
            .values(attempts=webhook_deliveries.c.attempts + 1)
        )

    def delete_delivery(self, delivery_id: str) -> None:
        """Remove a delivery."""
        self._connection.execute(webhook_deliveries.delete().where(*self._is_delivery(delivery_id)))

    def _is(self, endpoint_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            webhook_endpoints.c.project_id == self._project_id,
            webhook_endpoints.c.id == endpoint_id,
        )

    def _is_delivery(self, delivery_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            webhook_deliveries.c.project_id == self._project_id,
            webhook_deliveries.c.id == delivery_id,
        )


class DeliveryQueue:
    """The deliveries of every tenant that are due, save those to whom is busy already."""

    def __init__(
        self, connection: Connection, projects: Sequence[str], endpoints: Sequence[str]
    ) -> None:
        """`projects` and `endpoints` are the busy ones."""
        self._queue = Queue(connection)
        self._connection = connection
        to_busy = (
            sa.exists()
            .where(
                webhook_deliveries.c.project_id == tasks.c.project_id,
                webhook_deliveries.c.id == tasks.c.subject,
                webhook_deliveries.c.endpoint_id.in_(endpoints),
            )
            .correlate(tasks)
        )
        self._only = (tasks.c.project_id.not_in(projects), ~to_busy)

    def has_free(self) -> bool:
        """Return whether there is one to claim."""
        return self._queue.has_free(_KINDS, self._only)

    def claim(self, lease_s: float) -> tuple[Task, str] | None:
        """Take the oldest one for `lease_s` seconds; return its task and its endpoint's id."""
        task = self._queue.claim(_KINDS, lease_s, self._only)
        if task is None:
            return None
        endpoint_id = self._connection.execute(
            sa.select(webhook_deliveries.c.endpoint_id).where(
                webhook_deliveries.c.project_id == task.tenant.project_id,
                webhook_deliveries.c.id == task.subject,
            )
        ).scalar_one_or_none()
        return task, endpoint_id or ""


def _values(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "secret": endpoint.secret,
        "old_secrets": [asdict(old) for old in endpoint.old_secrets],
        "updated_at": endpoint.updated_at,
    }


def _endpoint(row: sa.Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        name=row.name,
        url=row.url,
        event_types=tuple(EventType(one) for one in row.event_types),
        secret=row.secret,
        old_secrets=tuple(OldSecret(**old) for old in row.old_secrets),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
