"""Ledger lines on their way to the disk: those that come while one commit runs share the next."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tunery.services.ledger import LedgerLine, write_lines
from tunery.storage.database import Database

_AT_MOST = 256  # lines of one commit, which holds the database's one writer

_Waiting = tuple[LedgerLine, "asyncio.Future[None]"]


class Ledger:
    """Writes lines on a thread of its own; a line has been committed when its `write` returns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._lock = threading.Lock()  # over the two below
        self._waiting: list[_Waiting] = []
        self._writing = False

    async def write(self, line: LedgerLine) -> None:
        """Commit a line; raise what the database refuses it with. Not to be cancelled."""
        written = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append((line, written))
            idle, self._writing = not self._writing, True
        if idle:
            self._thread.submit(self._write_all)
        await written

    def _write_all(self) -> None:
        while group := self._next():
            errors = self._write_group([line for line, _ in group])
            for (_, written), error in zip(group, errors, strict=True):
                with suppress(RuntimeError):  # its loop has been closed: nobody waits
                    written.get_loop().call_soon_threadsafe(_end, written, error)

    def _next(self) -> list[_Waiting]:
        with self._lock:
            group = self._waiting[:_AT_MOST]
            del self._waiting[:_AT_MOST]
            self._writing = bool(group)
        return group

    def _write_group(self, lines: Sequence[LedgerLine]) -> list[Exception | None]:
        """Return for each line the error it was refused with, or None where it is committed."""
        try:
            write_lines(self._database, lines)
        except Exception as error:
            if len(lines) == 1:
                return [error]
            # One line that cannot be written takes no other with it.
            return [self._write_group([line])[0] for line in lines]
        return [None] * len(lines)


def _end(written: "asyncio.Future[None]", error: Exception | None) -> None:
    if written.done():  # its task was broken off
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
