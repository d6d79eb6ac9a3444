"""Checkpoint permissions on the wire."""

from typing import Annotated, Literal

from pydantic import Field

from tunery.protocol.base import Request, Response


class CreatePermissionsRequest(Request):
    """The projects that are to use a model."""

    project_ids: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=100)
    ]


class CheckpointPermissionObject(Response):
    """A permission."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str


class CheckpointPermissionDeleted(Response):
    """A permission that was taken back."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: Literal[True] = True
