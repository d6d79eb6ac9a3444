"""An upload in parts: its record, its limits, and which MIME types go with which purpose."""

import re
from dataclasses import dataclass
from enum import StrEnum

from tunery.domain.errors import InvalidRequest
from tunery.domain.files import JSONL_PURPOSES, FilePurpose

MAX_UPLOAD_BYTES = 8 * 2**30
MAX_PART_BYTES = 64 * 2**20
MAX_PARTS = 10_000  # 128 full ones make the largest upload; rows are bounded too
LIFETIME_S = 3600

_MIME_TYPE = re.compile(r"([a-z0-9][a-z0-9!#$&^_.+-]*)/[a-z0-9][a-z0-9!#$&^_.+-]*", re.IGNORECASE)
_MAX_MIME_TYPE = 255
_JSONL_TYPES = (
    "text/jsonl",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/ndjson",
    "application/x-ndjson",
    "application/json",
    "text/plain",
    "application/octet-stream",
)
_KINDS = {FilePurpose.VISION: ("image",), FilePurpose.ASSISTANTS: ("application", "image", "text")}


class UploadStatus(StrEnum):
    """Where an upload stands, in OpenAI's words."""

    PENDING = "pending"  # takes parts
    COMPLETED = "completed"  # its file is there
    CANCELLED = "cancelled"
    EXPIRED = "expired"  # not completed in its hour


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """An upload's row: what file it is to become, and how far that is."""

    id: str
    filename: str
    purpose: FilePurpose
    mime_type: str
    size_bytes: int
    status: UploadStatus
    file_id: str | None
    completion_digest: bytes | None  # of what it was completed with
    file_expires_after_s: int | None
    created_at: int
    expires_at: int

    def status_at(self, now: int) -> UploadStatus:
        """Return its status: time expires an upload at once, a sweep only notes it."""
        if self.status is UploadStatus.PENDING and now >= self.expires_at:
            return UploadStatus.EXPIRED
        return self.status


@dataclass(frozen=True, slots=True)
class UploadPart:
    """A part's row. Its bytes are in the blob store under `blob_key`."""

    id: str
    upload_id: str
    size_bytes: int
    sha256: str
    blob_key: str
    created_at: int


def check_mime_type(mime_type: str, purpose: FilePurpose) -> None:
    """Raise InvalidRequest for a MIME type that does not go with the purpose."""
    essence = mime_type.partition(";")[0].strip().lower()
    found = _MIME_TYPE.fullmatch(essence)
    if found is None or len(mime_type) > _MAX_MIME_TYPE or not mime_type.isprintable():
        raise _refused(f"got {mime_type[:80]!r}, needed a type such as 'text/jsonl'")
    if purpose in JSONL_PURPOSES and essence not in _JSONL_TYPES:
        known = ", ".join(_JSONL_TYPES)
        raise _refused(f"got {mime_type[:80]!r}, needed one of {known} for purpose '{purpose}'")
    kinds = _KINDS.get(purpose)
    if kinds is not None and found[1] not in kinds:
        known = ", ".join(f"{kind}/*" for kind in kinds)
        raise _refused(f"got {mime_type[:80]!r}, needed one of {known} for purpose '{purpose}'")


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid value for 'mime_type': {why}.", param="mime_type", code="invalid_value"
    )
