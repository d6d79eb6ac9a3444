"""A tenant's files."""

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.files import FilePurpose, FileReport, FileStatus, LineError, StoredFile
from tunery.domain.tenants import Tenant
from tunery.storage.repositories.paging import Order, Page, select_page
from tunery.storage.tables import files


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
        """Return a file."""
        row = self._connection.execute(sa.select(files).where(*self._is(file_id))).one_or_none()
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
        """Return a page of files."""
        conditions = [files.c.project_id == self._project_id]
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


def _report(value: dict[str, Any]) -> FileReport:
    return FileReport(
        examples=value["examples"],
        errors=tuple(LineError(**error) for error in value["errors"]),
        error_count=value["error_count"],
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
