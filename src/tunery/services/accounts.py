"""Organizations, projects and keys: who may ask."""

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

from tunery.domain.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from tunery.domain.ids import new_id
from tunery.domain.tenants import Administrator, ApiKey, KeyKind, Tenant
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

_PREFIX = {KeyKind.PROJECT: "sk-tunery-", KeyKind.ADMIN: "sk-tunery-admin-"}
_SECRET_BYTES = 32
_MAX_KEY_LENGTH = 256


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which is shown this once."""

    key: ApiKey
    secret: str


@dataclass(frozen=True, slots=True)
class FirstAccount:
    """What the first start makes."""

    tenant: Tenant
    project_key: NewKey
    admin_key: NewKey


def create_first_account(
    database: Database, pepper: bytes, organization: str
) -> FirstAccount | None:
    """Make an organization, a project and two keys, or return None where there is one already."""
    now = int(time.time())
    with database.write() as tx:
        if tx.accounts.first_tenant() is not None:
            return None
        tenant = Tenant(new_id("org-"), slug(organization), new_id("proj_"))
        tx.accounts.add_organization(
            tenant.organization_id, tenant.organization_slug, organization, now
        )
        tx.accounts.add_project(tenant.project_id, tenant.organization_id, "Default project", now)
        project_key = _new_key(pepper, tenant, KeyKind.PROJECT, "first key")
        admin_key = _new_key(pepper, tenant, KeyKind.ADMIN, "first admin key")
        for new in (project_key, admin_key):
            tx.accounts.add_key(new.key, secret_hmac(pepper, new.secret))
    return FirstAccount(tenant, project_key, admin_key)


def create_project(database: Database, organization: str, name: str) -> Tenant:
    """Make a project; its organization is made too where there is none of that slug."""
    now = int(time.time())
    wanted = slug(organization)
    with database.write() as tx:
        organization_id = tx.accounts.organization_id(wanted)
        if organization_id is None:
            organization_id = new_id("org-")
            tx.accounts.add_organization(organization_id, wanted, organization, now)
        tenant = Tenant(organization_id, wanted, new_id("proj_"))
        tx.accounts.add_project(tenant.project_id, organization_id, name, now)
    return tenant


def create_key(
    database: Database, pepper: bytes, kind: KeyKind, name: str, project_id: str | None
) -> NewKey:
    """Make a key for a project, the first one unless `project_id` names another."""
    with database.write() as tx:
        tenant = _project(tx, project_id)
        new = _new_key(pepper, tenant, kind, name)
        tx.accounts.add_key(new.key, secret_hmac(pepper, new.secret))
    return new


def find_project(database: Database, project_id: str | None) -> Tenant:
    """Return a project, the first one unless `project_id` names another; raise NotFound."""
    with database.read() as tx:
        return _project(tx, project_id)


def _project(tx: Transaction, project_id: str | None) -> Tenant:
    tenant = tx.accounts.first_tenant() if project_id is None else tx.accounts.tenant(project_id)
    if tenant is None:
        raise NotFound(f"There is no project {project_id or 'yet; run tunery up first'}.")
    return tenant


def list_keys(database: Database) -> list[ApiKey]:
    """Return every key, without its secret."""
    with database.read() as tx:
        return list(tx.accounts.keys())


def revoke_key(database: Database, key_id: str) -> None:
    """Make a key open nothing from now on."""
    with database.write() as tx:
        if not tx.accounts.revoke_key(key_id, int(time.time())):
            raise NotFound(f"There is no active key {key_id}.")


def authenticate(database: Database, pepper: bytes, secret: str | None) -> ApiKey:
    """Return the key that a request came with.

    Raises Unauthenticated for a missing, unknown or revoked key. The look-up is by HMAC, so that
    its time tells nothing of the keys that exist.
    """
    if not secret:
        raise Unauthenticated(
            "You didn't provide an API key. Provide it in an Authorization header using Bearer"
            " auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
    if len(secret) > _MAX_KEY_LENGTH or not secret.isascii():
        raise _incorrect(secret)
    with database.read() as tx:
        key = tx.accounts.key_by_hmac(secret_hmac(pepper, secret))
    if key is None or key.revoked_at is not None:
        raise _incorrect(secret)
    return key


def require_project_key(key: ApiKey) -> Tenant:
    """Return the key's project; raise Forbidden for a key of another kind."""
    if key.kind is not KeyKind.PROJECT:
        raise Forbidden(
            "This is an admin key; files, jobs and models are opened by a project key.",
            code="insufficient_permissions",
        )
    return key.tenant


def require_admin_key(key: ApiKey) -> Administrator:
    """Return whom an admin key speaks for; raise Forbidden for a key of another kind."""
    if key.kind is not KeyKind.ADMIN:
        raise Forbidden(
            "This is a project key; administration needs an admin key as the API key of the"
            " request. Make one with `tunery keys create --kind admin`.",
            code="insufficient_permissions",
        )
    return Administrator(key.tenant.organization_id, key.id)


def slug(name: str) -> str:
    """Return `name` as it stands in model names; raise InvalidRequest where nothing is left."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64]
    if not text:
        raise InvalidRequest(f"Got the organization {name!r}; it needs a letter or a digit.")
    return text


def _new_key(pepper: bytes, tenant: Tenant, kind: KeyKind, name: str) -> NewKey:
    secret = _PREFIX[kind] + secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(
        id=new_id("key_"),
        kind=kind,
        name=name,
        hint=secret[-4:],
        tenant=tenant,
        created_at=int(time.time()),
        revoked_at=None,
    )
    return NewKey(key, secret)


def secret_hmac(pepper: bytes, secret: str) -> bytes:
    """Return what a key is kept and found by."""
    return hmac.new(pepper, secret.encode(), hashlib.sha256).digest()


def _incorrect(secret: str) -> Unauthenticated:
    shown = f"{secret[:6]}...{secret[-4:]}" if len(secret) > 20 else "***"
    return Unauthenticated(
        f"Incorrect API key provided: {shown}. Create one with `tunery keys create`.",
        code="invalid_api_key",
    )
