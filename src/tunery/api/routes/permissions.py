"""/v1/fine_tuning/checkpoints/{checkpoint}/permissions. A checkpoint's name may hold colons."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from tunery.api.body import documented, read_json
from tunery.api.context import context_of
from tunery.api.gate import AdminDependency
from tunery.api.once import once_key
from tunery.protocol.base import ListPage
from tunery.protocol.permissions import (
    CheckpointPermissionDeleted,
    CheckpointPermissionObject,
    CreatePermissionsRequest,
)
from tunery.services import permissions
from tunery.wire.pages import to_wire_page
from tunery.wire.permissions import to_wire_permission

router = APIRouter(prefix="/v1/fine_tuning/checkpoints")


@router.post("/{checkpoint:path}/permissions", openapi_extra=documented(CreatePermissionsRequest))
async def create(
    request: Request, admin: AdminDependency, checkpoint: str
) -> ListPage[CheckpointPermissionObject]:
    """Let projects of the organization use a model."""
    body = await read_json(request, CreatePermissionsRequest)
    granted = await run_in_threadpool(
        permissions.grant,
        context_of(request).database,
        admin,
        checkpoint,
        body.project_ids,
        once_key(request, body),
    )
    return to_wire_page([to_wire_permission(one) for one in granted], False)


@router.get("/{checkpoint:path}/permissions")
async def list_all(
    request: Request,
    admin: AdminDependency,
    checkpoint: str,
    project_id: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    order: Literal["ascending", "descending"] = "descending",
) -> ListPage[CheckpointPermissionObject]:
    """List a model's permissions, newest first unless asked otherwise."""
    page = await run_in_threadpool(
        permissions.list_permissions,
        context_of(request).database,
        admin,
        checkpoint,
        project_id=project_id,
        after=after,
        limit=limit,
        order="asc" if order == "ascending" else "desc",
    )
    return to_wire_page([to_wire_permission(one) for one in page.items], page.has_more)


@router.delete("/{checkpoint:path}/permissions/{permission_id}")
async def delete(
    request: Request, admin: AdminDependency, checkpoint: str, permission_id: str
) -> CheckpointPermissionDeleted:
    """Take a permission back."""
    context = context_of(request)
    await run_in_threadpool(permissions.revoke, context.database, admin, checkpoint, permission_id)
    context.parts.models.forget()
    return CheckpointPermissionDeleted(id=permission_id)
