"""Uploads in parts on the wire."""

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from tunery.protocol.base import Request, Response
from tunery.protocol.files import ExpiresAfter, FileObject


class CreateUploadRequest(Request):
    """An upload to create."""

    bytes: Annotated[StrictInt, Field(ge=1, le=8 * 2**30)]
    filename: Annotated[str, Field(min_length=1, max_length=255)]
    mime_type: Annotated[str, Field(min_length=1)]
    purpose: str
    expires_after: ExpiresAfter | None = None


class CompleteUploadRequest(Request):
    """The parts that make the file, in order."""

    part_ids: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=10_000)
    ]
    md5: Annotated[str, Field(pattern="^[0-9a-fA-F]{32}$")] | None = None


class Upload(Response):
    """An upload."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None = None


class UploadPart(Response):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
