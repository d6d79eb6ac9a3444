"""Where this machine keeps the token caches of its jobs: below one folder, a sub-folder a job.

A run holds a shared lock on its job's folder, and who removes one an exclusive lock, which the
kernel takes from a process that is killed. What a killed run leaves is taken up by the next attempt
at the job, or removed once the job has ended. Knows no job's state and no torch.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tunery.domain.errors import StorageFull


class CacheFolder:
    """The folder; it takes at most `max_bytes`.

    Jobs have names of the form `a/b/c`: the prefix of what they write elsewhere.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root, self._max_bytes = root, max_bytes

    @contextlib.contextmanager
    def held(self, job: str) -> Iterator[Path]:
        """Yield the folder of a job's caches, which nobody removes meanwhile."""
        folder = self._root / job
        while True:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = self._lock(folder, fcntl.LOCK_SH)
            if descriptor is not None:
                break
        try:
            os.utime(descriptor)  # used now
            yield folder
        finally:
            os.close(descriptor)

    def remove(self, job: str) -> bool:
        """Remove a job's caches; return whether they are gone: not while a run reads them."""
        folder = self._root / job
        if not folder.is_dir():
            return True
        descriptor = self._lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if descriptor is None:
            return False
        try:
            gone = self._root / f".{secrets.token_hex(8)}"
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(descriptor)
        return True

    def jobs(self) -> list[str]:
        """Return the jobs that have caches, the longest unused first."""
        used = []
        for folder in self._root.glob("[!.]*/*/*"):
            with contextlib.suppress(FileNotFoundError):  # removed in this moment
                used.append((folder.stat().st_mtime_ns, str(folder.relative_to(self._root))))
        return [job for _, job in sorted(used)]

    def sweep(self) -> None:
        """Remove what a removal that was killed has left."""
        for folder in self._root.glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)

    def make_room(self, job: str, needed: int) -> None:
        """Remove the caches of jobs that do not run until `needed` bytes more have their place.

        Such jobs are paused or wait for another try; their runs make them again. Raises StorageFull
        where the job's own are too large.
        """
        if self._used() + needed <= self._max_bytes:
            return
        for other in self.jobs():
            if other != job and self.remove(other) and self._used() + needed <= self._max_bytes:
                return
        raise StorageFull(
            f"The tokens of this run's files would take more than the {self._max_bytes} bytes of"
            " TUNERY_TRAINING__TOKEN_CACHE_BYTES; raise it, or train on a smaller file."
        )

    def _used(self) -> int:
        total = 0
        for path in self._root.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    @staticmethod
    def _lock(folder: Path, operation: int) -> int | None:
        """Return the descriptor of a locked folder; None where it was removed, or is in use."""
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, operation)
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None
