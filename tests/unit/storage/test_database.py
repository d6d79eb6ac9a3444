"""Transactions: all or nothing, and in turn, on both databases."""

import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from support.children import run_together
from support.databases import opened
from support.rows import OURS, a_file
from tunery.domain.errors import InvalidRequest, NotFound, Unavailable
from tunery.domain.tasks import TaskKind
from tunery.storage import database as database_module
from tunery.storage.database import Database

IMPORTS = """
import sys
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.storage.database import Database
"""
WRITER = """
database = Database(sys.argv[1])
for number in range(int(sys.argv[3])):
    with database.write() as tx:
        tx.queue.add(Tenant("o", "o", "p"), TaskKind.CHECK_FILE, f"{sys.argv[2]}-{number}")
database.close()
"""


class Stop(Exception):
    """Ends a transaction's block."""


def test_a_transaction_that_ends_by_an_error_leaves_nothing(database: Database) -> None:
    with pytest.raises(Stop), database.write() as tx:  # noqa: PT012 - the block is what is tested
        tx.files(OURS).add(a_file())
        tx.queue.add(OURS, TaskKind.CHECK_FILE, "file-1")
        assert tx.files(OURS).get("file-1") == a_file()
        raise Stop
    with database.write() as tx:
        assert tx.files(OURS).get("file-1") is None
        assert tx.queue.claim([TaskKind.CHECK_FILE], 60) is None


def test_a_transaction_that_ends_well_is_seen_by_another_connection(
    database: Database, database_url: str
) -> None:
    with database.write() as tx:
        tx.files(OURS).add(a_file())
    with opened(database_url) as other, other.read() as tx:
        assert tx.files(OURS).get("file-1") == a_file()


def test_a_write_is_unseen_until_its_commit(database: Database) -> None:
    with database.write() as writing:
        writing.files(OURS).add(a_file())
        with database.read() as reading:
            assert reading.files(OURS).get("file-1") is None


def test_writers_in_two_processes_wait_for_each_other(
    database: Database, database_url: str
) -> None:
    count = 60
    ended = run_together(IMPORTS, WRITER, [(database_url, name, str(count)) for name in "ab"])
    assert ended == ["", ""]
    with database.read() as tx:
        seen = tx._connection.execute(sa.text("SELECT subject FROM tasks")).scalars().all()
    assert sorted(seen) == sorted(f"{name}-{n}" for name in "ab" for n in range(count))


def test_opening_a_new_sqlite_file_waits_for_whoever_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE t (x)")
    release = threading.Timer(0.3, other.execute, ["COMMIT"])
    release.start()
    try:
        with opened(f"sqlite:///{path}") as database, database.write() as tx:
            mode = tx._connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    finally:
        release.join()
        other.close()
    assert mode == "wal"


def test_a_database_locked_by_another_process_is_told_as_unavailable(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    with opened(sqlite_url) as holder, opened(sqlite_url) as other, holder.write() as held:
        held.files(OURS).add(a_file())
        with pytest.raises(Unavailable) as told, other.write():
            pass
        assert told.value.code == "database_busy"
        with other.read() as tx:  # readers do not wait for the writer
            assert tx.files(OURS).get("file-1") is None
    with opened(sqlite_url) as other, other.write() as tx:
        assert tx.files(OURS).get("file-1") == a_file()


def test_a_database_locked_by_another_thread_is_told_as_unavailable(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    with opened(sqlite_url) as database:
        with database.write(), pytest.raises(Unavailable) as told, database.write():
            pass
        assert told.value.code == "database_busy"
        with database.write() as tx:
            tx.files(OURS).add(a_file())


def test_a_row_locked_on_a_server_is_told_as_unavailable(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 2.0)
    with opened(postgresql_url) as database:
        with database.write() as tx:
            tx.files(OURS).add(a_file())
        with opened(postgresql_url) as other, other.engine.connect() as connection:
            timeout = connection.execute(sa.text("SHOW lock_timeout")).scalar_one()
            assert timeout == "2s"  # else the next line would wait for ever
            with database.write() as holder:
                holder.files(OURS).delete("file-1")
                with pytest.raises(Unavailable) as told, other.write() as tx:
                    tx.files(OURS).delete("file-1")
        assert told.value.code == "database_busy"


def test_a_server_that_is_not_there_is_told_as_unavailable() -> None:
    with opened("postgresql+psycopg://nobody@127.0.0.1:1/none") as database:
        with pytest.raises(Unavailable) as told, database.read():
            pass
        assert told.value.code == "database_unavailable"


def test_a_sqlite_file_that_cannot_be_opened_is_told_as_unavailable(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}") as database:
        with pytest.raises(Unavailable) as told, database.write():
            pass
        assert told.value.code == "database_unavailable"


def test_each_commit_of_sqlite_is_flushed_and_deleted_rows_are_overwritten(sqlite_url: str) -> None:
    with opened(sqlite_url) as database, database.engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
        }
    assert values == {
        "journal_mode": "wal",
        "synchronous": 2,
        "secure_delete": 1,
        "foreign_keys": 1,
    }


def test_a_text_with_a_nul_finds_nothing_on_either_database(database: Database) -> None:
    # Telling the caller that there can be no such id is as good.
    with contextlib.suppress(InvalidRequest, NotFound), database.read() as tx:
        assert tx.files(OURS).get("file-\0") is None
