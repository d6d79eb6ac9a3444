"""Ledger lines on their way to the disk: those that come while one commit runs share the next."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tunery.domain.errors import StorageFull, Unavailable
from tunery.services.ledger import LedgerLine, write_lines
from tunery.storage.database import Database

_AT_MOST = 256  # lines of one commit, which holds the database's one writer

_Waiting = tuple[LedgerLine, "asyncio.Future[None]"]


class Ledger:
    """Writes lines on a thread of its own, which ends only once all of them are written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._lock = threading.Lock()  # over the two below
        self._waiting: list[_Waiting] = []
        self._writing = False

    async def write(self, line: LedgerLine) -> None:
        """Commit a line; raise what the database refuses it with. A cancel ends only the wait."""
        await asyncio.shield(self.put(line))

    def put(self, line: LedgerLine) -> "asyncio.Future[None]":
        """Have a line committed; the future ends then, or with what the database refuses it with.

        What was put is written whatever becomes of the future.
        """
        written = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append((line, written))
            idle, self._writing = not self._writing, True
        if idle:
            self._thread.submit(self._write_all)
        return written

    def _write_all(self) -> None:
        while group := self._next():
            self._write_group(group)

    def _next(self) -> list[_Waiting]:
        with self._lock:
            group = self._waiting[:_AT_MOST]
            del self._waiting[:_AT_MOST]
            self._writing = bool(group)
        return group

    def _write_group(self, group: Sequence[_Waiting]) -> None:
        try:
            write_lines(self._database, [line for line, _ in group])
        except (Unavailable, StorageFull) as error:  # no line's own fault: the next would fail too
            _tell(group, error)
        except Exception as error:
            if len(group) == 1:
                _tell(group, error)
                return
            for one in group:  # one line that cannot be written takes no other with it
                self._write_group([one])
        else:
            _tell(group, None)


def _tell(group: Sequence[_Waiting], error: Exception | None) -> None:
    for _, written in group:
        with suppress(RuntimeError):  # its loop has been closed: nobody waits
            written.get_loop().call_soon_threadsafe(_end, written, error)


def _end(written: "asyncio.Future[None]", error: Exception | None) -> None:
    if written.done():  # its task was broken off
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
