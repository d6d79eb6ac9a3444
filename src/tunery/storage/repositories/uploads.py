"""A tenant's uploads and the parts that they have so far."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.files import FilePurpose
from tunery.domain.tenants import Tenant
from tunery.domain.uploads import MultipartUpload, UploadPart, UploadStatus
from tunery.storage.tables import upload_parts, uploads


@dataclass(frozen=True, slots=True)
class LeftPart:
    """A part, of any project, of an upload that takes no more: its bytes are to go."""

    seq: int
    blob_key: str


class UploadRepository:
    """The uploads of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def add(self, upload: MultipartUpload) -> None:
        """Insert an upload's row."""
        self._connection.execute(
            uploads.insert().values(project_id=self._project_id, **asdict(upload))
        )

    def get(self, upload_id: str, *, lock: bool = False) -> MultipartUpload | None:
        """Return an upload; under a lock its status stays until the transaction ends."""
        query = sa.select(uploads).where(*self._is(upload_id))
        row = self._connection.execute(query.with_for_update() if lock else query).one_or_none()
        return None if row is None else _upload(row)

    def complete(self, upload_id: str, file_id: str, digest: bytes) -> bool:
        """Mark a pending upload as completed; return whether it was pending."""
        return self._end(
            upload_id, UploadStatus.COMPLETED, file_id=file_id, completion_digest=digest
        )

    def cancel(self, upload_id: str) -> bool:
        """Mark a pending upload as cancelled; return whether it was pending."""
        return self._end(upload_id, UploadStatus.CANCELLED)

    def add_part(self, part: UploadPart) -> None:
        """Insert a part's row; its blob is already durable."""
        self._connection.execute(
            upload_parts.insert().values(project_id=self._project_id, **asdict(part))
        )

    def part(self, part_id: str) -> UploadPart | None:
        """Return a part."""
        row = self._connection.execute(
            sa.select(upload_parts).where(
                upload_parts.c.project_id == self._project_id, upload_parts.c.id == part_id
            )
        ).one_or_none()
        return None if row is None else _part(row)

    def parts(self, upload_id: str) -> Sequence[UploadPart]:
        """Return an upload's parts, in the order in which they came."""
        rows = self._connection.execute(
            sa.select(upload_parts).where(*self._of(upload_id)).order_by(upload_parts.c.seq)
        )
        return [_part(row) for row in rows]

    def part_totals(self, upload_id: str) -> tuple[int, int]:
        """Return how many parts an upload has, and how many bytes they are together."""
        count, total = self._connection.execute(
            sa.select(sa.func.count(), sa.func.sum(upload_parts.c.size_bytes)).where(
                *self._of(upload_id)
            )
        ).one()
        return int(count), int(total or 0)

    def drop_parts(self, upload_id: str) -> None:
        """Remove the rows of an upload's parts; their blobs are gone."""
        self._connection.execute(upload_parts.delete().where(*self._of(upload_id)))

    def _end(self, upload_id: str, status: UploadStatus, **changes: Any) -> bool:
        moved = self._connection.execute(
            uploads.update()
            .where(*self._is(upload_id), uploads.c.status == UploadStatus.PENDING)
            .values(status=status, **changes)
        )
        return moved.rowcount == 1

    def _is(self, upload_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (uploads.c.project_id == self._project_id, uploads.c.id == upload_id)

    def _of(self, upload_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            upload_parts.c.project_id == self._project_id,
            upload_parts.c.upload_id == upload_id,
        )


def expire_uploads(connection: Connection, before: int) -> int:
    """Mark every project's pending uploads that expired by `before`; return how many."""
    return connection.execute(
        uploads.update()
        .where(uploads.c.status == UploadStatus.PENDING, uploads.c.expires_at <= before)
        .values(status=UploadStatus.EXPIRED)
    ).rowcount


def left_parts(connection: Connection, limit: int) -> Sequence[LeftPart]:
    """Return up to `limit` parts, of any project, whose uploads take no more."""
    rows = connection.execute(
        sa.select(upload_parts.c.seq, upload_parts.c.blob_key)
        .join(
            uploads,
            sa.and_(
                uploads.c.project_id == upload_parts.c.project_id,
                uploads.c.id == upload_parts.c.upload_id,
            ),
        )
        .where(uploads.c.status != UploadStatus.PENDING)
        .order_by(upload_parts.c.seq)
        .limit(limit)
    )
    return [LeftPart(row.seq, row.blob_key) for row in rows]


def forget_parts(connection: Connection, parts: Sequence[LeftPart]) -> None:
    """Remove the rows of parts whose blobs are gone."""
    connection.execute(
        upload_parts.delete().where(upload_parts.c.seq.in_([part.seq for part in parts]))
    )


def _upload(row: sa.Row[Any]) -> MultipartUpload:
    return MultipartUpload(
        id=row.id,
        filename=row.filename,
        purpose=FilePurpose(row.purpose),
        mime_type=row.mime_type,
        size_bytes=row.size_bytes,
        status=UploadStatus(row.status),
        file_id=row.file_id,
        completion_digest=row.completion_digest,
        file_expires_after_s=row.file_expires_after_s,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _part(row: sa.Row[Any]) -> UploadPart:
    return UploadPart(
        id=row.id,
        upload_id=row.upload_id,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        blob_key=row.blob_key,
        created_at=row.created_at,
    )
