"""Organizations, projects and API keys."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.tenants import ApiKey, KeyKind, Tenant
from tunery.storage.tables import api_keys, organizations, projects


class AccountRepository:
    """Every organization; the caller has established that it may see them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def first_tenant(self) -> Tenant | None:
        """Return the project that was made first, if there is one."""
        row = self._connection.execute(
            self._tenants().order_by(projects.c.seq).limit(1)
        ).one_or_none()
        return None if row is None else Tenant(row.organization_id, row.slug, row.id)

    def tenant(self, project_id: str) -> Tenant | None:
        """Return the project with this id."""
        row = self._connection.execute(
            self._tenants().where(projects.c.id == project_id)
        ).one_or_none()
        return None if row is None else Tenant(row.organization_id, row.slug, row.id)

    def organization_id(self, slug: str) -> str | None:
        """Return the id of the organization of this slug."""
        return self._connection.execute(
            sa.select(organizations.c.id).where(organizations.c.slug == slug)
        ).scalar_one_or_none()

    def add_organization(self, organization_id: str, slug: str, name: str, now: int) -> None:
        """Insert an organization."""
        self._connection.execute(
            organizations.insert().values(id=organization_id, slug=slug, name=name, created_at=now)
        )

    def add_project(self, project_id: str, organization_id: str, name: str, now: int) -> None:
        """Insert a project."""
        self._connection.execute(
            projects.insert().values(
                id=project_id, organization_id=organization_id, name=name, created_at=now
            )
        )

    def add_key(self, key: ApiKey, secret_hmac: bytes) -> None:
        """Insert a key: its HMAC, never its secret."""
        self._connection.execute(
            api_keys.insert().values(
                id=key.id,
                kind=key.kind,
                name=key.name,
                hint=key.hint,
                secret_hmac=secret_hmac,
                organization_id=key.tenant.organization_id,
                project_id=key.tenant.project_id,
                created_at=key.created_at,
                revoked_at=key.revoked_at,
            )
        )

    def key_by_hmac(self, secret_hmac: bytes) -> ApiKey | None:
        """Return the key whose secret has this HMAC."""
        row = self._connection.execute(
            self._keys().where(api_keys.c.secret_hmac == secret_hmac)
        ).one_or_none()
        return None if row is None else self._key(row)

    def keys(self) -> Sequence[ApiKey]:
        """Return every key, oldest first."""
        rows = self._connection.execute(self._keys().order_by(api_keys.c.seq))
        return [self._key(row) for row in rows]

    def revoke_key(self, key_id: str, now: int) -> bool:
        """Mark a key as revoked; return whether there was such a key that was not."""
        changed = self._connection.execute(
            api_keys.update()
            .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
        return changed.rowcount == 1

    @staticmethod
    def _tenants() -> sa.Select[Any]:
        return sa.select(projects.c.id, projects.c.organization_id, organizations.c.slug).join(
            organizations, organizations.c.id == projects.c.organization_id
        )

    @staticmethod
    def _keys() -> sa.Select[Any]:
        return sa.select(api_keys, organizations.c.slug).join(
            organizations, organizations.c.id == api_keys.c.organization_id
        )

    @staticmethod
    def _key(row: sa.Row[Any]) -> ApiKey:
        return ApiKey(
            id=row.id,
            kind=KeyKind(row.kind),
            name=row.name,
            hint=row.hint,
            tenant=Tenant(row.organization_id, row.slug, row.project_id),
            created_at=row.created_at,
            revoked_at=row.revoked_at,
        )
