"""Files."""

from tunery.domain.files import StoredFile
from tunery.protocol.files import FileObject


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
