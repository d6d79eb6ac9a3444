"""Which models of an organization's projects its other projects may use."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection

from tunery.domain.permissions import CheckpointPermission
from tunery.storage.repositories.paging import Order, Page, select_page
from tunery.storage.tables import checkpoint_permissions, models, projects


class PermissionRepository:
    """The permissions of one organization; the caller has established that it may see them."""

    def __init__(self, connection: Connection, organization_id: str) -> None:
        self._connection = connection
        self._organization_id = organization_id

    def owners(self, model_name: str, *, lock: bool = False) -> Sequence[str]:
        """Return the organization's projects that own a model of this name.

        Under a lock the models stay until the transaction ends.
        """
        query = (
            sa.select(models.c.project_id)
            .join(projects, projects.c.id == models.c.project_id)
            .where(projects.c.organization_id == self._organization_id, models.c.name == model_name)
            .order_by(models.c.seq)
        )
        if lock:
            query = query.with_for_update(read=True, of=models)
        return self._connection.execute(query).scalars().all()

    def grant(self, permission: CheckpointPermission) -> CheckpointPermission:
        """Insert a permission, or return the one that the project has already."""
        insert = sqlite_insert if self._connection.dialect.name == "sqlite" else postgresql_insert
        self._connection.execute(
            insert(checkpoint_permissions)
            .values(organization_id=self._organization_id, **asdict(permission))
            .on_conflict_do_nothing(index_elements=["owner_project_id", "model_name", "project_id"])
        )
        standing = self.find(
            permission.owner_project_id, permission.model_name, permission.project_id
        )
        return permission if standing is None else standing

    def find(
        self, owner_project_id: str, model_name: str, project_id: str
    ) -> CheckpointPermission | None:
        """Return the permission that a project has."""
        row = self._connection.execute(
            sa.select(checkpoint_permissions).where(
                *self._of(model_name),
                checkpoint_permissions.c.owner_project_id == owner_project_id,
                checkpoint_permissions.c.project_id == project_id,
            )
        ).one_or_none()
        return None if row is None else _permission(row)

    def page(
        self,
        model_name: str,
        *,
        project_id: str | None,
        after: str | None,
        limit: int,
        order: Order,
    ) -> Page[CheckpointPermission]:
        """Return a page of a model's permissions."""
        conditions = self._of(model_name)
        if project_id is not None:
            conditions.append(checkpoint_permissions.c.project_id == project_id)
        rows, more = select_page(
            self._connection,
            checkpoint_permissions,
            conditions,
            after=after,
            limit=limit,
            order=order,
        )
        return Page(tuple(_permission(row) for row in rows), more)

    def revoke(self, model_name: str, permission_id: str) -> bool:
        """Remove a permission; return whether there was one."""
        removed = self._connection.execute(
            checkpoint_permissions.delete().where(
                *self._of(model_name), checkpoint_permissions.c.id == permission_id
            )
        )
        return removed.rowcount == 1

    def forget(self, owner_project_id: str, model_name: str) -> None:
        """Remove every permission of a model that its owner deletes."""
        self._connection.execute(
            checkpoint_permissions.delete().where(
                *self._of(model_name),
                checkpoint_permissions.c.owner_project_id == owner_project_id,
            )
        )

    def _of(self, model_name: str) -> list[sa.ColumnElement[bool]]:
        return [
            checkpoint_permissions.c.organization_id == self._organization_id,
            checkpoint_permissions.c.model_name == model_name,
        ]


def _permission(row: sa.Row[Any]) -> CheckpointPermission:
    return CheckpointPermission(
        id=row.id,
        owner_project_id=row.owner_project_id,
        model_name=row.model_name,
        project_id=row.project_id,
        created_at=row.created_at,
    )
