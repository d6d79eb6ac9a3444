"""Which of a tenant's objects carry which metadata, to filter lists by.

Kept are digests of project, key and value: the texts themselves stay in their sealed column.
"""

import hashlib
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.tenants import Tenant
from tunery.storage.tables import labels


class LabelRepository:
    """The metadata of one project's objects, as digests."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def set(self, owner_id: str, metadata: Mapping[str, str] | None) -> None:
        """Make `metadata` what the object is found by, in place of what it was found by before."""
        self.drop(owner_id)
        rows = [
            {"project_id": self._project_id, "owner_id": owner_id, "digest": self._digest(*pair)}
            for pair in (metadata or {}).items()
        ]
        if rows:
            self._connection.execute(labels.insert(), rows)

    def drop(self, owner_id: str) -> None:
        """Forget an object."""
        self._connection.execute(
            labels.delete().where(
                labels.c.project_id == self._project_id, labels.c.owner_id == owner_id
            )
        )

    def matching(
        self, owner_id: sa.Column[str], metadata: Mapping[str, str]
    ) -> list[sa.ColumnElement[bool]]:
        """Return conditions on `owner_id`: the object carries each of these pairs."""
        return [
            sa.exists().where(
                labels.c.project_id == self._project_id,
                labels.c.owner_id == owner_id,
                labels.c.digest == self._digest(key, value),
            )
            for key, value in metadata.items()
        ]

    def _digest(self, key: str, value: str) -> bytes:
        # Lengths in front: no two pairs run together into the same bytes.
        text = "".join(f"{len(part)}:{part}" for part in (self._project_id, key, value))
        return hashlib.sha256(text.encode()).digest()
