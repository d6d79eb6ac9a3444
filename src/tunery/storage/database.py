"""The database: transactions, and the settings that make SQLite and PostgreSQL behave alike.

SQLite writers take BEGIN IMMEDIATE behind one lock a process, so that they queue here and not in
busy loops; each commit is on disk before it is answered (synchronous=FULL).
"""

import errno
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import QueuePool

from tunery.domain.errors import InvalidRequest, StorageFull, TuneryError, Unavailable
from tunery.storage.transaction import Transaction

BUSY_TIMEOUT_S = 5.0


class Database:
    """Opens transactions on one database."""

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._writer = threading.Lock()
        self.engine = self._sqlite_engine() if self.is_sqlite else self._server_engine()

    def _sqlite_engine(self) -> Engine:
        engine = sa.create_engine(
            self.url,
            poolclass=QueuePool,
            pool_size=8,
            max_overflow=32,
            connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        )

        @event.listens_for(engine, "connect")
        def _connect(connection: sqlite3.Connection, record: object) -> None:
            connection.isolation_level = None  # transactions are begun below, not by the driver
            _use_wal(connection)
            for pragma in (
                "synchronous=FULL",
                "secure_delete=ON",
                "foreign_keys=ON",
                "temp_store=MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            writes = connection.get_execution_options().get("tunery_writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _server_engine(self) -> Engine:
        return sa.create_engine(
            self.url,
            pool_size=8,
            max_overflow=32,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": int(BUSY_TIMEOUT_S),
                "options": f"-c lock_timeout={int(BUSY_TIMEOUT_S * 1000)}",
            },
        )

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a transaction that changes nothing: one consistent view."""
        with self.told(), self.engine.connect() as plain:
            connection = plain
            if not self.is_sqlite:  # which would see what commits between two of its queries
                connection = plain.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield Transaction(connection)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open a transaction: all of it is durable when the block ends, or none of it."""
        with self.told():
            if not self.is_sqlite:
                with self.engine.begin() as connection:
                    yield Transaction(connection)
                return
            if not self._writer.acquire(timeout=BUSY_TIMEOUT_S):
                raise Unavailable("The database is busy; try again.", code="database_busy")
            try:
                with self.engine.connect() as plain:
                    connection = plain.execution_options(tunery_writes=True)
                    with connection.begin():
                        yield Transaction(connection)
            finally:
                self._writer.release()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turn the driver's errors into those a caller can be told about."""
        try:
            yield
        except (OperationalError, InterfaceError) as error:
            raise _translated(error) from error
        except DatabaseError as error:
            text = str(error.orig).lower()
            if "not a database" in text or "malformed" in text:
                raise Unavailable(
                    f"The database {self.url.database} is damaged ({error.orig}); restore it from"
                    " a backup.",
                    code="database_damaged",
                ) from error
            if not isinstance(error, DataError):
                raise
            raise InvalidRequest(
                "Got a text that the database cannot take: a NUL in it?"
            ) from error


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite does not wait for locks here by itself."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _translated(error: DBAPIError) -> TuneryError:
    original = error.orig
    text = str(original).lower()
    if (
        "disk is full" in text
        or "no space left" in text
        or getattr(original, "sqlite_errorname", "") == "SQLITE_FULL"
        or getattr(original, "errno", None) == errno.ENOSPC
    ):
        return StorageFull("The disk that holds the database is full; free some space.")
    if any(word in text for word in ("locked", "lock timeout", "deadlock", "busy")):
        return Unavailable("The database is busy; try again.", code="database_busy")
    if "no such table" in text or "no such column" in text:
        return Unavailable(
            "The database's schema is old; run `tunery migrate`.", code="database_schema"
        )
    return Unavailable("The database does not answer; try again.", code="database_unavailable")
