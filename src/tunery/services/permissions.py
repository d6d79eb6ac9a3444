"""An organization's administrator lets a project use a model of another one of its projects."""

import time
from collections.abc import Sequence

from tunery.domain.errors import InvalidRequest, NotFound
from tunery.domain.ids import new_id
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.permissions import CheckpointPermission
from tunery.domain.tenants import Administrator, Tenant
from tunery.services.models import unknown_model
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Order, Page
from tunery.storage.transaction import Transaction


def grant(
    database: Database,
    admin: Administrator,
    model_name: str,
    project_ids: Sequence[str],
    once: OnceKey | None = None,
) -> list[CheckpointPermission]:
    """Let each project use the model, or none of them; a project that may already stays as it is.

    A repeat under a known key grants nothing, not even what was taken back since.
    """
    now, repeated = int(time.time()), False
    with database.write() as tx:
        # Idempotency-Keys are kept by project. The organization's own are kept under its id.
        keys = Tenant(admin.organization_id, "", admin.organization_id)
        try:
            tx.once(keys).record(once, "permissions", now)
        except AlreadyDone:
            repeated = True
        owner = _owner(tx, admin, model_name)
        for number, project_id in enumerate(project_ids):
            _check_project(tx, admin, owner, project_id, known=project_ids[:number])
        permissions = tx.permissions(admin.organization_id)
        if repeated:
            found = [permissions.find(owner, model_name, project_id) for project_id in project_ids]
            return [permission for permission in found if permission is not None]
        return [
            permissions.grant(
                CheckpointPermission(new_id("cp_"), owner, model_name, project_id, now)
            )
            for project_id in project_ids
        ]


def list_permissions(
    database: Database,
    admin: Administrator,
    model_name: str,
    *,
    project_id: str | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[CheckpointPermission]:
    """Return a page of a model's permissions."""
    with database.read() as tx:
        _require_model(tx, admin, model_name)
        return tx.permissions(admin.organization_id).page(
            model_name, project_id=project_id, after=after, limit=limit, order=order
        )


def revoke(database: Database, admin: Administrator, model_name: str, permission_id: str) -> None:
    """Take a permission back: the project's next request is refused."""
    with database.write() as tx:
        _require_model(tx, admin, model_name)
        if not tx.permissions(admin.organization_id).revoke(model_name, permission_id):
            raise NotFound(
                f"The model `{model_name[:200]}` has no permission {permission_id[:200]}.",
                param="permission_id",
            )


def _require_model(tx: Transaction, admin: Administrator, model_name: str) -> None:
    if not tx.permissions(admin.organization_id).owners(model_name):
        raise unknown_model(model_name)


def _owner(tx: Transaction, admin: Administrator, model_name: str) -> str:
    """Return the project that owns the model: there has to be one, or it is not clear which."""
    owners = tx.permissions(admin.organization_id).owners(model_name, lock=True)
    if not owners:
        raise unknown_model(model_name)
    if len(owners) > 1:
        raise InvalidRequest(
            f"The projects {', '.join(owners[:5])} each have a model `{model_name[:200]}`, so it is"
            " not clear which to share. Delete the others first.",
            code="model_ambiguous",
        )
    return owners[0]


def _check_project(
    tx: Transaction, admin: Administrator, owner: str, project_id: str, *, known: Sequence[str]
) -> None:
    tenant = tx.accounts.tenant(project_id)
    if tenant is None or tenant.organization_id != admin.organization_id:
        raise _refused(f"there is no project {project_id[:80]!r} in this organization")
    if project_id == owner:
        raise _refused(f"project {project_id} owns the model and needs no permission")
    if project_id in known:
        raise _refused(f"project {project_id} stands there twice")


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for 'project_ids': {why}.", param="project_ids", code="invalid_value"
    )
