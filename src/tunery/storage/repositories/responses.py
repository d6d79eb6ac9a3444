"""A tenant's stored responses. One that is past its time is gone, swept or not."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.responses import StoredResponse
from tunery.domain.tenants import Tenant
from tunery.storage.tables import responses


class ResponseRepository:
    """The responses of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def add(self, response: StoredResponse) -> None:
        """Insert a response."""
        self._connection.execute(
            responses.insert().values(
                project_id=self._project_id,
                id=response.id,
                previous_id=response.previous_id,
                model=response.model,
                input_items=list(response.input_items),
                response=dict(response.response),
                created_at=response.created_at,
                expires_at=response.expires_at,
            )
        )

    def get(self, response_id: str, now: int) -> StoredResponse | None:
        """Return a response that is not past its time."""
        row = self._connection.execute(
            sa.select(responses).where(*self._is(response_id), responses.c.expires_at > now)
        ).one_or_none()
        return None if row is None else _response(row)

    def delete(self, response_id: str) -> None:
        """Remove a response."""
        self._connection.execute(responses.delete().where(*self._is(response_id)))

    def _is(self, response_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (responses.c.project_id == self._project_id, responses.c.id == response_id)


def remove_expired_responses(connection: Connection, now: int) -> int:
    """Remove every project's responses that are past their time; return how many."""
    return connection.execute(responses.delete().where(responses.c.expires_at <= now)).rowcount


def _response(row: sa.Row[Any]) -> StoredResponse:
    return StoredResponse(
        id=row.id,
        previous_id=row.previous_id,
        model=row.model,
        input_items=tuple(row.input_items),
        response=row.response,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
