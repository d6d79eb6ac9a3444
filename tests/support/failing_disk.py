"""A disk that fails at its n-th write, flush or rename; and one that forgets what was not flushed.

Stands between this process's Python code and the real file system, for the files below one folder.
With a fault that is an error, the operation is half done and raises it. With a death, the process
ends in the midst of the operation and the machine with it: bytes that were not flushed are cut off
somewhere, and each new name and folder whose folder was not flushed may be gone.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any, NoReturn

import pytest

OPERATIONS = ("write", "fsync", "rename")
DEATH = 9  # the exit code of a process that has died of a fault


@dataclass(frozen=True, slots=True)
class Fault:
    """The `nth` operation of its kind, from 1, fails: with an errno, or by a death without one."""

    operation: str
    nth: int
    errno: int | None


@contextmanager
def failing_disk(root: Path, fault: Fault) -> Iterator["Disk"]:
    """Have the fault happen to files below `root` within the block."""
    with pytest.MonkeyPatch.context() as patches:
        yield Disk(root, fault, patches)


class Disk:
    """What of the folder would survive the loss of power, and the fault that is to come."""

    def __init__(self, root: Path, fault: Fault, patches: pytest.MonkeyPatch) -> None:
        self.root, self.fault = root, fault
        self.done = 0
        self._unflushed: dict[Path, int] = {}  # files, and how many of their bytes would stay
        self._unnamed: list[tuple[Path, Path, bytes | None]] = []  # old, new, what new was before
        self._unlisted: list[Path] = []  # folders
        self._open, self._rename = Path.open, Path.rename
        self._mkdir, self._fsync = Path.mkdir, os.fsync
        for name in ("open", "rename", "mkdir"):
            patches.setattr(Path, name, partialmethod(_through, getattr(self, name)))
        patches.setattr(os, "fsync", self.fsync)

    def open(self, path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        handle = self._open(path, mode, *args, **options)
        if not ({"w", "x"} & set(mode)) or self.root not in path.parents:
            return handle
        self._unflushed[path] = 0
        return _Written(self, path, handle)

    def write(self, handle: Any, data: bytes) -> int:
        if self._is_next("write"):
            handle.write(memoryview(data)[: len(data) // 2])
            self._fail()
        written: int = handle.write(data)
        return written

    def fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path != self.root and self.root not in path.parents:
            self._fsync(descriptor)
            return
        if self._is_next("fsync"):
            self._fail()
        self._fsync(descriptor)
        if path.is_dir():
            self._unnamed = [one for one in self._unnamed if one[1].parent != path]
            self._unlisted = [one for one in self._unlisted if one.parent != path]
        else:
            self._unflushed.pop(path, None)

    def rename(self, path: Path, target: Path) -> Path:
        if self.root not in path.parents or path.is_dir():
            return self._rename(path, target)
        if self._is_next("rename"):
            self._fail()
        before = target.read_bytes() if target.exists() else None
        renamed = self._rename(path, target)
        self._unnamed.append((path, target, before))
        if path in self._unflushed:
            self._unflushed[target] = self._unflushed.pop(path)
        return renamed

    def mkdir(self, path: Path, *args: Any, **options: Any) -> None:
        new = [one for one in (path, *path.parents) if self.root in one.parents]
        new = [one for one in new if not one.exists()]
        self._mkdir(path, *args, **options)
        self._unlisted += [one for one in new if one not in self._unlisted]

    def _is_next(self, operation: str) -> bool:
        if operation != self.fault.operation:
            return False
        self.done += 1
        return self.done == self.fault.nth

    def _fail(self) -> NoReturn:
        if self.fault.errno is not None:
            raise OSError(self.fault.errno, os.strerror(self.fault.errno))
        self.forget()
        os._exit(DEATH)

    def forget(self) -> None:
        """Leave of the folder what a loss of power may leave of it, drawn by the fault."""
        rng = random.Random(f"{self.fault}")
        for path, size in self._unflushed.items():
            if path.exists():
                with self._open(path, "rb+") as file:
                    file.truncate(rng.randint(size, path.stat().st_size))
        for old, new, before in reversed(self._unnamed):
            if new.exists() and rng.random() < 0.5:
                self._rename(new, old)
                if before is not None:
                    new.write_bytes(before)
        for folder in self._unlisted:
            if rng.random() < 0.5:
                shutil.rmtree(folder, ignore_errors=True)


def _through(path: Path, act: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return act(path, *args, **options)


class _Written:
    """A file that is being written, whose writes the disk counts."""

    def __init__(self, disk: Disk, path: Path, handle: Any) -> None:
        self._disk, self._path, self._handle = disk, path, handle

    def __enter__(self) -> "_Written":
        self._handle.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)

    def write(self, data: bytes) -> int:
        return self._disk.write(self._handle, data)
