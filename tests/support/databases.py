"""Real databases to test on: SQLite in a file, and PostgreSQL where TUNERY_TEST_POSTGRES names one.

Each test gets a database of its own: a copy of one that was migrated once a session.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tunery.storage.database import Database
from tunery.storage.migrate import migrate

VARIABLE = "TUNERY_TEST_POSTGRES"
BACKENDS = ("sqlite", "postgresql")


def server_url() -> sa.URL:
    """Return the PostgreSQL server to test on; skip without one, but fail in CI."""
    value = os.environ.get(VARIABLE)
    if not value:
        message = f"{VARIABLE} names no PostgreSQL; `python3 scripts/postgres.py -- pytest` does"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return sa.make_url(value)


@contextmanager
def postgresql_database(template: str = "template1") -> Iterator[str]:
    """Make a database on the server, yield its URL, and drop it."""
    server = server_url()
    name = f"tunery_test_{secrets.token_hex(8)}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite file with the newest schema; not to be changed."""
    path = tmp_path_factory.mktemp("migrated") / "tunery.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def migrated_postgresql() -> Iterator[str]:
    """Return the name of a PostgreSQL database with the newest schema, with nobody in it."""
    with postgresql_database() as url:
        database = Database(url)
        migrate(database)
        database.close()
        yield str(sa.make_url(url).database)


@pytest.fixture(params=BACKENDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database without any table: on SQLite, then on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with postgresql_database() as url:
        yield url


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """Return the URL of a migrated SQLite database."""
    path = tmp_path / "tunery.db"
    shutil.copyfile(migrated_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a migrated PostgreSQL database."""
    server_url()  # skips before the template is asked for
    with postgresql_database(request.getfixturevalue("migrated_postgresql")) as url:
        yield url


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a migrated database: on SQLite, then on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Return a migrated database: on SQLite, then on PostgreSQL."""
    with opened(database_url) as database:
        yield database


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """Open a database for a block."""
    database = Database(url)
    try:
        yield database
    finally:
        database.close()
