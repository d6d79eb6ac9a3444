"""Where engines are found and asked for: a folder with three files for each base, by its digest.

`<digest>.json` holds the address and secret of an engine that is up. `<digest>.arithmetic` is what
it computes in; it stays when the engine ends. `<digest>.wanted` is touched by whoever asks that
engine for something; what keeps engines running reads when that was. All are small files, so that
any process of the service may be killed at any time. Knows no process.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

RENEW_S = 2.0  # between two touches of a mark
FRESH_S = 5.0  # a base is wanted for as long after one


@dataclass(frozen=True, slots=True)
class EnginePlaces:
    """The folder."""

    folder: Path

    def address(self, base_digest: str) -> Path:
        """Return the file with the address of the base's engine."""
        return self.folder / f"{base_digest}.json"

    def mark(self, base_digest: str) -> Path:
        """Return the file that says when the base's engine was last wanted."""
        return self.folder / f"{base_digest}.wanted"

    def announced(self) -> list[str]:
        """Return the bases whose engines have said where they are."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def wanted(self) -> Iterator[tuple[float, str]]:
        """Yield how many seconds ago each base was wanted, and its digest."""
        now = time.time()
        for path in self.folder.glob("*.wanted"):
            with suppress(FileNotFoundError):  # taken away meanwhile
                # A clock that was set back leaves marks of the future: as old as they are far.
                yield abs(now - path.stat().st_mtime), path.stem


def arithmetic_of(address: Path) -> Path:
    """Return the file that says what the engine at an address computes in."""
    return address.with_suffix(".arithmetic")


class Arithmetic:
    """What a base's engine computes in, as it said last, such as `native-int8`; or nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[tuple[int, int], str] | None = None

    def __call__(self) -> str:
        """Return it; the file is read again only where it is another one."""
        try:
            status = self._path.stat()
            version = (status.st_ino, status.st_mtime_ns)
            if self._known is None or self._known[0] != version:
                self._known = version, self._path.read_text()
        except FileNotFoundError:
            return ""
        return self._known[1]


class Mark:
    """One base's mark, touched at most every two seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._touched = 0.0

    def renew(self) -> None:
        """Say that the base is wanted now."""
        now = time.monotonic()
        if now - self._touched >= RENEW_S or not self._touched:
            with suppress(OSError):  # a full disk: an engine that is up answers all the same
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._path.touch(mode=0o600)
            self._touched = now
