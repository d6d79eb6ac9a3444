"""A tenant's files."""

from dataclasses import asdict
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.batches import TERMINAL as BATCH_ENDED
from tunery.domain.files import (
    FilePurpose,
    FileReport,
    FileStatus,
    LineError,
    LineFormat,
    StoredFile,
)
from tunery.domain.jobs import TERMINAL as JOB_ENDED
from tunery.domain.tenants import Tenant
from tunery.storage.clock import database_now
from tunery.storage.repositories.paging import Order, Page, select_page
from tunery.storage.tables import batches, files, jobs

Lock = Literal["shared", "exclusive"]


class FileRepository:
    """The files of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def add(self, file: StoredFile) -> None:
        """Insert a file's row; its blob is already durable."""
        self._connection.execute(
            files.insert().values(
                project_id=self._project_id,
                id=file.id,
                filename=file.filename,
                purpose=file.purpose,
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                blob_key=file.blob_key,
                status=file.status,
                created_at=file.created_at,
                expires_at=file.expires_at,
            )
        )

    def get(self, file_id: str) -> StoredFile | None:
        """Return a file, expired or not: for work that began while it was there."""
        row = self._connection.execute(sa.select(files).where(*self._is(file_id))).one_or_none()
        return None if row is None else _file(row)

    def visible(self, file_id: str, *, lock: Lock | None = None) -> StoredFile | None:
        """Return a file that has not expired.

        Under a lock it stays until the transaction ends: shared for what is going to need it,
        exclusive for what is going to remove it.
        """
        query = sa.select(files).where(*self._is(file_id), _unexpired())
        if lock is not None:
            query = query.with_for_update(read=lock == "shared")
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _file(row)

    def report(self, file_id: str) -> FileReport | None:
        """Return what the file's check found, once it is done."""
        value = self._connection.execute(
            sa.select(files.c.report).where(*self._is(file_id))
        ).scalar_one_or_none()
        return None if value is None else _report(value)

    def page(
        self, *, purpose: str | None, after: str | None, limit: int, order: Order
    ) -> Page[StoredFile]:
        """Return a page of files that have not expired."""
        conditions = [files.c.project_id == self._project_id, _unexpired()]
        if purpose is not None:
            conditions.append(files.c.purpose == purpose)
        rows, more = select_page(
            self._connection, files, conditions, after=after, limit=limit, order=order
        )
        return Page(tuple(_file(row) for row in rows), more)

    def set_checked(self, file_id: str, status: FileStatus, report: FileReport) -> None:
        """Record the outcome of the file's check."""
        self._connection.execute(
            files.update().where(*self._is(file_id)).values(status=status, report=asdict(report))
        )

    def delete(self, file_id: str) -> None:
        """Remove a file's row."""
        self._connection.execute(files.delete().where(*self._is(file_id)))

    def _is(self, file_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (files.c.project_id == self._project_id, files.c.id == file_id)


def remove_expired_files(connection: Connection, now: int, limit: int) -> list[str]:
    """Remove up to `limit` files of any project that are past their time; return their blobs' keys.

    A file that an unfinished job or batch needs is kept until that has ended: its owner sees it no
    more, and what was begun with it is finished.
    """
    past = (
        files.c.expires_at <= now,
        sa.not_(
            sa.exists().where(
                jobs.c.project_id == files.c.project_id,
                sa.or_(jobs.c.training_file == files.c.id, jobs.c.validation_file == files.c.id),
                jobs.c.status.not_in(JOB_ENDED),
            )
        ),
        sa.not_(
            sa.exists().where(
                batches.c.project_id == files.c.project_id,
                batches.c.input_file_id == files.c.id,
                batches.c.status.not_in(BATCH_ENDED),
            )
        ),
    )
    locked = connection.execute(
        sa.select(files.c.seq)
        .where(*past)
        .order_by(files.c.seq)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).scalars()
    # Asked again under the lock: a job may have been created since the first look.
    removed = connection.execute(
        files.delete().where(files.c.seq.in_(list(locked)), *past).returning(files.c.blob_key)
    )
    return list(removed.scalars())


def _unexpired() -> sa.ColumnElement[bool]:
    return sa.or_(files.c.expires_at.is_(None), files.c.expires_at > database_now())


def _report(value: dict[str, Any]) -> FileReport:
    return FileReport(
        examples=value["examples"],
        errors=tuple(LineError(**error) for error in value["errors"]),
        error_count=value["error_count"],
        line_format=LineFormat(value.get("line_format", LineFormat.CHAT)),
    )


def _file(row: sa.Row[Any]) -> StoredFile:
    report = None if row.report is None else _report(row.report)
    return StoredFile(
        id=row.id,
        filename=row.filename,
        purpose=FilePurpose(row.purpose),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        blob_key=row.blob_key,
        status=FileStatus(row.status),
        status_details=report.summary() if report is not None and report.error_count else None,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
