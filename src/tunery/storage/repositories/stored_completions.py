"""A tenant's stored chat completions."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.stored_completions import StoredCompletion
from tunery.domain.tenants import Tenant
from tunery.storage.repositories.labels import LabelRepository
from tunery.storage.repositories.paging import Order, Page, select_page
from tunery.storage.tables import stored_completions


class StoredCompletionRepository:
    """The stored completions of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id
        self._labels = LabelRepository(connection, tenant)

    def add(self, completion: StoredCompletion) -> None:
        """Insert a completion, to be found by its metadata."""
        self._connection.execute(
            stored_completions.insert().values(
                project_id=self._project_id,
                id=completion.id,
                model=completion.model,
                metadata=dict(completion.metadata) if completion.metadata else None,
                request={"id": completion.request_id, "body": completion.request},
                response=completion.response,
                created_at=completion.created_at,
            )
        )
        self._labels.set(completion.id, completion.metadata)

    def get(self, completion_id: str) -> StoredCompletion | None:
        """Return a completion."""
        row = self._connection.execute(
            sa.select(stored_completions).where(*self._is(completion_id))
        ).one_or_none()
        return None if row is None else _completion(row)

    def page(
        self,
        *,
        model: str | None,
        metadata: Mapping[str, str] | None,
        after: str | None,
        limit: int,
        order: Order,
    ) -> Page[StoredCompletion]:
        """Return a page of completions; `metadata` of None means those that have none."""
        conditions = [stored_completions.c.project_id == self._project_id]
        if model is not None:
            conditions.append(stored_completions.c.model == model)
        if metadata is None:
            conditions.append(stored_completions.c.metadata.is_(None))
        else:
            conditions += self._labels.matching(stored_completions.c.id, metadata)
        rows, more = select_page(
            self._connection, stored_completions, conditions, after=after, limit=limit, order=order
        )
        return Page(tuple(_completion(row) for row in rows), more)

    def set_metadata(self, completion_id: str, metadata: Mapping[str, str] | None) -> None:
        """Put `metadata` in place of what the completion carried."""
        self._connection.execute(
            stored_completions.update()
            .where(*self._is(completion_id))
            .values(metadata=dict(metadata) if metadata else None)
        )
        self._labels.set(completion_id, metadata)

    def delete(self, completion_id: str) -> None:
        """Remove a completion and what it was found by."""
        self._connection.execute(stored_completions.delete().where(*self._is(completion_id)))
        self._labels.drop(completion_id)

    def _is(self, completion_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            stored_completions.c.project_id == self._project_id,
            stored_completions.c.id == completion_id,
        )


def _completion(row: sa.Row[Any]) -> StoredCompletion:
    return StoredCompletion(
        id=row.id,
        model=row.model,
        metadata=row.metadata,
        request_id=row.request["id"],
        request=row.request["body"],
        response=row.response,
        created_at=row.created_at,
    )
