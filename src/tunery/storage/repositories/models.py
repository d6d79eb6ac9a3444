"""A tenant's tuned models."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.jobs import Adapter
from tunery.domain.models import TunedModel
from tunery.domain.tenants import Tenant
from tunery.storage.tables import checkpoint_permissions, models

_BY_NAME = sa.select(models).where(  # made once: every answer of a tuned model waits for it
    models.c.project_id == sa.bindparam("project"), models.c.name == sa.bindparam("model")
)


class ModelRepository:
    """The tuned models and checkpoints of one project, by name."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._organization_id = tenant.organization_id
        self._project_id = tenant.project_id

    def add(self, model: TunedModel) -> None:
        """Register a model: from this commit on it answers."""
        self._connection.execute(
            models.insert().values(
                project_id=self._project_id,
                name=model.name,
                job_id=model.job_id,
                base=model.base,
                base_digest=model.base_digest,
                adapter_key=model.adapter.key,
                adapter_digest=model.adapter.digest,
                created_at=model.created_at,
            )
        )

    def replace(self, model: TunedModel) -> TunedModel | None:
        """Register a model under a name that may be taken; return what answered to it before."""
        before = self.get(model.name)
        if before is not None:
            self.delete(model.name)
        self.add(model)
        return before

    def get(self, name: str) -> TunedModel | None:
        """Return a model."""
        wanted = {"project": self._project_id, "model": name}
        row = self._connection.execute(_BY_NAME, wanted).one_or_none()
        return None if row is None else _model(row)

    def all(self) -> Sequence[TunedModel]:
        """Return every model, oldest first."""
        rows = self._connection.execute(
            sa.select(models).where(models.c.project_id == self._project_id).order_by(models.c.seq)
        )
        return [_model(row) for row in rows]

    def granted(self, name: str | None = None) -> Sequence[TunedModel]:
        """Return the other projects' models, all or those of a name, that this one may use."""
        query = (
            sa.select(models)
            .join(
                checkpoint_permissions,
                sa.and_(
                    checkpoint_permissions.c.owner_project_id == models.c.project_id,
                    checkpoint_permissions.c.model_name == models.c.name,
                ),
            )
            .where(
                checkpoint_permissions.c.organization_id == self._organization_id,
                checkpoint_permissions.c.project_id == self._project_id,
            )
            .order_by(models.c.seq)
        )
        if name is not None:
            query = query.where(models.c.name == name)
        return [_model(row) for row in self._connection.execute(query)]

    def delete(self, name: str) -> None:
        """Remove a model's row: from this commit on it answers no more."""
        self._connection.execute(models.delete().where(*self._is(name)))

    def adapter_in_use(self, adapter: Adapter) -> bool:
        """Return whether a model still needs the adapter's files."""
        found = self._connection.execute(
            sa.select(models.c.seq)
            .where(models.c.project_id == self._project_id, models.c.adapter_key == adapter.key)
            .limit(1)
        ).one_or_none()
        return found is not None

    def _is(self, name: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (models.c.project_id == self._project_id, models.c.name == name)


def _model(row: sa.Row[Any]) -> TunedModel:
    return TunedModel(
        name=row.name,
        job_id=row.job_id,
        base=row.base,
        base_digest=row.base_digest,
        adapter=Adapter(row.adapter_key, row.adapter_digest),
        created_at=row.created_at,
    )
