"""Bring a database to the newest schema; a run that was killed is finished by the next one."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tunery.storage.database import Database

_MIGRATIONS = Path(__file__).with_name("migrations")
_POSTGRESQL_LOCK = 0x74756E657279  # "tunery": two processes that start together migrate in turn


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def migrate(database: Database) -> None:
    """Apply what is missing, in one transaction."""
    config = _config()
    with database.told(), database.engine.connect() as plain:
        connection = plain.execution_options(tunery_writes=True)
        with connection.begin():
            if not database.is_sqlite:
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def is_current(database: Database) -> bool:
    """Return whether the database has the newest schema."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with database.told(), database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head
