"""Migrations: to the tables as declared, again without harm, and whole after a kill."""

import signal
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from support.children import line_of, python, run_together
from support.databases import opened
from support.rows import OURS, a_file
from tunery.domain.errors import Unavailable
from tunery.storage.migrate import is_current, migrate
from tunery.storage.tables import metadata

IMPORTS = """
import sys
from tunery.storage.database import Database
from tunery.storage.migrate import migrate
"""
MIGRATOR = """
database = Database(sys.argv[1])
migrate(database)
database.close()
"""
# Stops for good before its sixth statement that makes a table.
KILLED = """
import sys
import sqlalchemy as sa
from tunery.storage.database import Database
from tunery.storage.migrate import migrate
database = Database(sys.argv[1])
made = 0
@sa.event.listens_for(database.engine, "before_cursor_execute")
def stop(connection, cursor, statement, parameters, context, many):
    global made
    if statement.strip().startswith("CREATE TABLE") and "alembic" not in statement:
        made += 1
        if made == 6:
            print("half-way", flush=True)
            sys.stdin.readline()
migrate(database)
"""


def differences(url: str) -> list[object]:
    with opened(url) as database, database.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )


def table_names(url: str) -> set[str]:
    with opened(url) as database:
        return set(sa.inspect(database.engine).get_table_names())


def test_the_migrated_schema_is_the_declared_one(empty_url: str) -> None:
    with opened(empty_url) as database:
        migrate(database)
    assert differences(empty_url) == []
    assert table_names(empty_url) == {*metadata.tables, "alembic_version"}


def test_migrating_again_changes_nothing(empty_url: str) -> None:
    with opened(empty_url) as database:
        assert not is_current(database)
        migrate(database)
        with database.write() as tx:
            tx.files(OURS).add(a_file())
        migrate(database)
        assert is_current(database)
        with database.read() as tx:
            assert tx.files(OURS).get("file-1") == a_file()


def test_processes_that_migrate_at_once_all_end_well(empty_url: str) -> None:
    assert run_together(IMPORTS, MIGRATOR, [[empty_url]] * 4) == [""] * 4
    assert differences(empty_url) == []


def test_a_migration_killed_half_way_is_completed_by_the_next(empty_url: str) -> None:
    with python(KILLED, empty_url) as migrator:
        assert line_of(migrator) == "half-way"
        migrator.kill()
        assert migrator.wait(timeout=60) == -signal.SIGKILL
    assert not table_names(empty_url) & set(metadata.tables)  # nothing of it stayed
    with opened(empty_url) as database:
        assert not is_current(database)
        migrate(database)
        assert is_current(database)
    assert differences(empty_url) == []


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    text = b"not a database at all, but a text" * 40
    path = tmp_path / "tunery.db"
    path.write_bytes(text)
    with opened(f"sqlite:///{path}") as database, pytest.raises(Unavailable, match="damaged"):
        migrate(database)
    assert path.read_bytes() == text
