"""Where bytes are kept: how a tenant's data touches a disk, but for a run's token cache."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class BlobWriter(Protocol):
    """A blob being written; it is nowhere to be seen until `commit`."""

    def write(self, chunk: bytes) -> None:
        """Append `chunk`; raise StorageFull when the disk takes no more."""

    def commit(self) -> None:
        """Make the blob durable under its key, whole. Leaving the context without it drops all."""


class BlobStore(Protocol):
    """Immutable blobs under keys of the form `a/b/c`."""

    def writer(self, key: str) -> AbstractContextManager[BlobWriter]:
        """Open `key` for writing. A key is written once; a second commit replaces it whole."""

    def put(self, key: str, data: bytes) -> None:
        """Write `data` under `key`, durably."""

    def read(self, key: str) -> bytes:
        """Return the whole blob; raise NotFound if there is none."""

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the blob in chunks; raise NotFound if there is none."""

    def delete(self, key: str) -> None:
        """Remove the blob, if it is there."""

    def delete_prefix(self, prefix: str) -> None:
        """Remove every blob whose key starts with the folder `prefix`."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys under the folder `prefix`."""
