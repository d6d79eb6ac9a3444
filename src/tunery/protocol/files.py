"""Files on the wire."""

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from tunery.protocol.base import Request, Response


class ExpiresAfter(Request):
    """When a file is to expire."""

    anchor: Literal["created_at"]
    seconds: Annotated[StrictInt, Field(ge=3600, le=2_592_000)]


class FileObject(Response):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: str
    status_details: str | None = None


class FileDeleted(Response):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
