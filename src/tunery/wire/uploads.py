"""Uploads in parts."""

from tunery.domain.files import upload_purpose
from tunery.domain.uploads import UploadPart as PartRecord
from tunery.protocol.uploads import CreateUploadRequest, Upload, UploadPart
from tunery.services.multipart_uploads import UploadRequest, UploadView
from tunery.wire.files import to_wire_file


def from_wire_upload(body: CreateUploadRequest) -> UploadRequest:
    """Return what an upload is to be created with."""
    return UploadRequest(
        filename=body.filename.replace("\\", "/").rpartition("/")[2],
        purpose=upload_purpose(body.purpose),
        mime_type=body.mime_type,
        size_bytes=body.bytes,
        file_expires_after_s=None if body.expires_after is None else body.expires_after.seconds,
    )


def to_wire_upload(view: UploadView, now: int) -> Upload:
    """Return an upload as OpenAI writes it, as it stands at `now`."""
    upload = view.upload
    return Upload(
        id=upload.id,
        bytes=upload.size_bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status_at(now),
        file=None if view.file is None else to_wire_file(view.file),
    )


def to_wire_part(part: PartRecord) -> UploadPart:
    """Return a part as OpenAI writes it."""
    return UploadPart(id=part.id, created_at=part.created_at, upload_id=part.upload_id)
