"""Checkpoint permissions."""

from tunery.domain.permissions import CheckpointPermission
from tunery.protocol.permissions import CheckpointPermissionObject


def to_wire_permission(permission: CheckpointPermission) -> CheckpointPermissionObject:
    """Return a permission as OpenAI writes it: without the model, which the path names."""
    return CheckpointPermissionObject(
        id=permission.id, created_at=permission.created_at, project_id=permission.project_id
    )
