"""Blobs in a local folder: written aside, flushed to disk, then renamed into place.

A crash at any moment leaves either the whole blob or a file under `tmp/`, which `sweep` removes.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tunery.domain.errors import InvalidRequest, NotFound, disk_errors_told

CHUNK = 1 << 20
STALE_S = 24 * 3600


class LocalBlobWriter:
    """A blob being written to a temporary file."""

    def __init__(self, handle: BinaryIO, temporary: Path, target: Path, root: Path) -> None:
        self._handle = handle
        self._temporary = temporary
        self._target = target
        self._root = root

    def write(self, chunk: bytes) -> None:
        """Append `chunk`."""
        self._handle.write(chunk)

    def commit(self) -> None:
        """Flush to disk, rename into place, and make the rename durable."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._temporary.rename(self._target)
        _sync_folders(self._target.parent, self._root)


class LocalBlobStore:
    """Blobs below `root`, readable by this user only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._blobs = root / "blobs"
        for folder in (root, self._temporary, self._blobs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextmanager
    def writer(self, key: str) -> Iterator[LocalBlobWriter]:
        """Open `key` for writing; without `commit` nothing of it stays."""
        target = self._path(key)
        temporary = self._temporary / secrets.token_hex(16)
        try:
            with disk_errors_told(self._root), temporary.open("xb") as handle:
                yield LocalBlobWriter(handle, temporary, target, self._blobs)
        finally:
            with suppress(OSError):  # what stays is swept
                temporary.unlink(missing_ok=True)

    def put(self, key: str, data: bytes) -> None:
        """Write `data` under `key`, durably."""
        with self.writer(key) as writer:
            writer.write(data)
            writer.commit()

    def read(self, key: str) -> bytes:
        """Return the whole blob."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"No blob under {key!r}.") from None

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the blob in chunks of 1 MiB."""
        try:
            handle = self._path(key).open("rb")
        except FileNotFoundError:
            raise NotFound(f"No blob under {key!r}.") from None
        with handle:
            while chunk := handle.read(CHUNK):
                yield chunk

    def delete(self, key: str) -> None:
        """Remove the blob, if it is there."""
        self._path(key).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> None:
        """Remove every blob below the folder `prefix`."""
        shutil.rmtree(self._path(prefix), ignore_errors=True)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below the folder `prefix`."""
        folder = self._path(prefix)
        if folder.is_dir():
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    yield path.relative_to(self._blobs).as_posix()

    def sweep(self) -> int:
        """Remove what crashes left unfinished for a day; return how many files that were."""
        removed = 0
        for path in self._temporary.iterdir():
            try:
                stale = path.stat().st_mtime < time.time() - STALE_S
            except FileNotFoundError:  # another process has just finished it
                continue
            if stale:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
            raise InvalidRequest(f"Got blob key {key!r}; needed names separated by '/'.")
        return self._blobs.joinpath(*parts)


def _sync_folders(folder: Path, root: Path) -> None:
    """Make a rename durable: the file's entry, and the entry of every folder below `root`."""
    for path in (folder, *folder.parents):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == root:
            return
