"""Files, and when they are to expire."""

from tunery.domain.errors import InvalidRequest
from tunery.domain.files import MAX_EXPIRY_S, MIN_EXPIRY_S, StoredFile
from tunery.protocol.files import FileObject

ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"  # as a form has them


def from_wire_expiry_field(name: str, value: str) -> int | None:
    """Return the seconds that a form's field gives, if it is the one; refuse what it cannot be."""
    if name == ANCHOR:
        if value != "created_at":
            raise _invalid(name, f"got {value[:40]!r}, needed 'created_at'")
        return None
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 12 else -1
    if not MIN_EXPIRY_S <= number <= MAX_EXPIRY_S:
        raise _invalid(
            name, f"got {value[:40]!r}, needed a whole number from {MIN_EXPIRY_S} to {MAX_EXPIRY_S}"
        )
    return number


def _invalid(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{name}': {why}.", param=name, code="invalid_value")


def to_wire_file(file: StoredFile) -> FileObject:
    """Return a file as OpenAI writes it."""
    return FileObject(
        id=file.id,
        bytes=file.size_bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=file.purpose,
        status=file.status,
        status_details=file.status_details,
    )
