"""What time alone brings about: things that expire are removed, whoever made them.

Every act may be repeated after a crash at any of its steps, so any number of workers may sweep.
"""

import threading
import time
from collections.abc import Callable, Sequence

from tunery.domain.errors import TuneryError
from tunery.domain.ports.blobs import BlobStore
from tunery.services import files, multipart_uploads, training
from tunery.storage.database import Database
from tunery.telemetry import Logger
from tunery.training.cache_folder import CacheFolder

Act = Callable[[int], int]
"""Takes the time in Unix seconds, returns how many things it changed."""


class Sweeper:
    """Runs acts again and again until told to stop."""

    def __init__(
        self, acts: Sequence[tuple[str, Act]], *, every_s: float, stopping: threading.Event
    ) -> None:
        self._acts = acts
        self._every_s = every_s
        self._stopping = stopping

    def run(self, log: Logger) -> None:
        """Sweep until `stopping` is set."""
        while not self._stopping.wait(self._every_s):
            self.sweep(int(time.time()), log)

    def sweep(self, now: int, log: Logger) -> None:
        """Run every act once; one that fails keeps no other from running."""
        for name, act in self._acts:
            try:
                changed = act(now)
            except TuneryError as error:
                log.warning("not swept", what=name, error=error.message)
            except Exception:  # a sweeper that ended would never be missed
                log.exception("not swept", what=name)
            else:
                if changed:
                    log.info("swept", what=name, count=changed)


def forget_old_keys(database: Database) -> Act:
    """Return the act that removes Idempotency-Keys past their day."""

    def act(now: int) -> int:
        with database.write() as tx:
            return tx.forget_old_keys(now)

    return act


def remove_expired_files(database: Database, blobs: BlobStore) -> Act:
    """Return the act that removes files past their time."""
    return lambda now: files.remove_expired(database, blobs, now)


def end_uploads(database: Database, blobs: BlobStore) -> Act:
    """Return the act that ends uploads past their hour, and removes the parts of ended ones."""
    return lambda now: multipart_uploads.sweep(database, blobs, now)


def remove_expired_responses(database: Database) -> Act:
    """Return the act that removes stored responses past their time."""

    def act(now: int) -> int:
        with database.write() as tx:
            return tx.remove_expired_responses(now)

    return act


def remove_ended_caches(database: Database, caches: CacheFolder) -> Act:
    """Return the act that removes the token caches of jobs that have ended.

    They are removed when their job ends: this is for those whose worker was killed, or whose run
    was still reading.
    """

    def act(now: int) -> int:
        del now
        found = caches.jobs()  # before the question: a cache that is made meanwhile is not asked of
        if not found:
            return 0
        unfinished = training.unfinished_prefixes(database)
        return sum(caches.remove(job) for job in found if job not in unfinished)

    return act
