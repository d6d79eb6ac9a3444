"""A transaction on a server that waits for another one's locks."""

import threading
from collections.abc import Callable

import sqlalchemy as sa

from support.rows import wait_for
from tunery.storage.database import Database


class Waiting:
    """Calls a function on a thread of its own, and knows when it waits for a lock."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_for_lock(self, database: Database) -> None:
        """Return once a transaction of this database waits for a lock."""
        query = sa.text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

        def waits() -> bool:
            with database.engine.connect() as connection:
                return bool(connection.execute(query).scalar_one())

        wait_for(waits, "a transaction that waits for a lock")

    def result(self) -> BaseException | None:
        """Wait for the end, and return the error that was raised, if any."""
        self._thread.join()
        return self.error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error
