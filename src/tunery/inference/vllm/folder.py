"""Adapters' files where vLLM reads them: a folder on its machine, one sub-folder an adapter.

A sub-folder has the adapter's name, which is also the name that vLLM knows it by: `<key>@<sha256>`
as one path component. It comes into being whole, by a rename, and never comes to mean other
weights. Whoever uses an adapter holds a shared lock on its folder, whoever removes it an exclusive
one; the kernel lets go of a killed process's locks. So several processes may share the folder.
Knows no vLLM.
"""

import contextlib
import fcntl
import hashlib
import hmac
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tunery.domain.errors import NotFound, StorageFull, TuneryError, Unavailable
from tunery.domain.jobs import Adapter
from tunery.domain.ports.blobs import BlobStore

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_ABANDONED_S = 3600.0  # a folder that is still being made after that was left by a killed process


def file_name(adapter: Adapter) -> str:
    """Return the adapter's name, `<key>@<sha256>`, as one component of a path."""
    return f"{quote(adapter.key, safe='')}@{adapter.digest}"


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock on an adapter's folder, held until it is released."""

    descriptor: int

    def release(self) -> None:
        """Let go."""
        os.close(self.descriptor)


class AdapterFolder:
    """The folder; it keeps `most` adapters.

    More come where all are in use, and stay until the next one is loaded.
    """

    def __init__(self, folder: Path, blobs: BlobStore, most: int) -> None:
        self._folder, self._blobs, self._most = folder, blobs, most

    def path(self, name: str) -> Path:
        """Return where the adapter of that name is, or would be."""
        return self._folder / name

    def hold(self, adapter: Adapter) -> Lock | None:
        """Have the adapter's files there and return a shared lock on them.

        None while somebody removes them: to be asked again. Raises Unavailable where the store does
        not have the files, and TuneryError where their bytes do not have the adapter's digest.
        """
        name = file_name(adapter)
        self._put(adapter, name)
        lock = self._lock(name, fcntl.LOCK_SH)
        if lock is not None:
            now = time.time_ns()  # the kernel's own clock for this is coarse
            os.utime(lock.descriptor, ns=(now, now))
        return lock

    def claim(self, name: str) -> Lock | None:
        """Return an exclusive lock on an adapter's files; None where they are in use, or gone."""
        return self._lock(name, fcntl.LOCK_EX)

    def has(self, name: str) -> bool:
        """Return whether the adapter's files are there."""
        return (self.path(name) / _CONFIG).exists()

    def remove(self, name: str) -> None:
        """Remove an adapter's files; only under an exclusive lock."""
        gone = self._unseen(name)
        self.path(name).rename(gone)
        shutil.rmtree(gone)

    def surplus(self) -> tuple[int, list[str]]:
        """Return how many adapters are beyond those that are kept, and all, longest unused first.

        All of them, since the longest unused may still be in use.
        """
        used = sorted((status.st_mtime_ns, path.parent.name) for path, status in self._seen())
        return max(0, len(used) - self._most), [name for _, name in used]

    def sweep(self) -> None:
        """Remove what killed processes have left half-made."""
        for path in self._folder.glob(".*"):
            try:
                abandoned = time.time() - path.stat().st_mtime > _ABANDONED_S
            except FileNotFoundError:
                continue
            if abandoned:
                shutil.rmtree(path, ignore_errors=True)

    def _seen(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.glob(f"[!.]*/{_CONFIG}"):
            try:
                yield path, path.stat()
            except FileNotFoundError:
                continue  # removed in this moment

    def _unseen(self, name: str) -> Path:
        return self._folder / f".{hashlib.sha256(name.encode()).hexdigest()[:16]}.{_token()}"

    def _lock(self, name: str, operation: int) -> Lock | None:
        """Return a lock; None where it cannot be had now, or the files are gone.

        Never waits: a thread that waited here would be missing to the one it waits for.
        """
        path = self.path(name) / _CONFIG
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # else removed in between
                return Lock(descriptor)
        os.close(descriptor)
        return None

    def _put(self, adapter: Adapter, name: str) -> None:
        """Write the adapter's files if they are not there: flushed, then renamed into place."""
        if self.has(name):
            return
        weights, config = self._read(adapter)
        made = self._unseen(name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            made.mkdir(mode=0o755)  # who may look into the folder above may read: vLLM's user
            _write(made / _WEIGHTS, weights)
            _write(made / _CONFIG, config)
            _flush_folder(made)
            try:
                made.rename(self.path(name))
            except OSError:
                if not self.has(name):  # else another process was quicker
                    raise
            _flush_folder(self._folder)
        except OSError as error:
            raise StorageFull(
                f"The adapter cannot be written for vLLM: {error.strerror}. The operator has to"
                f" look at {self._folder}."
            ) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _read(self, adapter: Adapter) -> tuple[bytes, bytes]:
        try:
            weights = self._blobs.read(f"{adapter.key}/{_WEIGHTS}")
            config = self._blobs.read(f"{adapter.key}/{_CONFIG}")
        except NotFound as error:
            raise Unavailable(
                "The model's files are missing from the store.", code="model_files_missing"
            ) from error
        if not hmac.compare_digest(hashlib.sha256(weights).hexdigest(), adapter.digest):
            raise TuneryError(
                "The adapter's bytes do not have the digest of its name.", code="engine_error"
            )
        return weights, config


def _token() -> str:
    return secrets.token_hex(8)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
