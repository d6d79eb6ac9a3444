"""Keeps a claimed task while it is worked on, and notices when it is lost."""

import threading
import time

from tunery.domain.errors import TuneryError
from tunery.domain.tasks import LeaseLost, Task
from tunery.storage.database import Database

_LOOK_S = 1.0  # a cancelled job's task is gone: seen within this time


class Stopping(Exception):
    """The worker is to stop: its task is to be given back."""


class Lease:
    """Renews the task's lease in the background until it is closed or lost."""

    def __init__(
        self, database: Database, task: Task, lease_s: float, stopping: threading.Event
    ) -> None:
        self._stopping = stopping
        self._database = database
        self._task = task
        self._lease_s = lease_s
        self._lost = threading.Event()
        self._yield = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost once the task is another's, or Stopping where the worker is to stop."""
        if self._stopping.is_set():
            raise Stopping
        if self._lost.is_set():
            raise LeaseLost(f"task {self._task.id} ({self._task.kind} {self._task.subject})")

    @property
    def is_to_yield(self) -> bool:
        """Whether the task's job was paused: its work is to come to a stop and be kept."""
        return self._yield.is_set()

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._closed.wait(min(_LOOK_S, self._lease_s / 4)):
            try:
                with self._database.write() as tx:
                    goes_on = tx.queue.renew(self._task, self._lease_s)
                if not goes_on:
                    self._yield.set()
                renewed = time.monotonic()
            except LeaseLost:
                self._lost.set()
                return
            except TuneryError:  # the database does not answer: hope, until the lease has run out
                if time.monotonic() - renewed > self._lease_s:
                    self._lost.set()
                    return
