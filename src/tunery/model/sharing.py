"""Cores shared by an engine and a training run on one machine: half each while both compute.

Threads of two processes that want the same core wait for each other's time slices, at every one of
the hundreds of places in a step where all of them must have arrived: both then crawl. So the engine
computes with half the threads, and a run is kept on the other half of the cores. A run's threads
stay as many as they were, and so do its bits: how many there are decides the order of its sums.

Each says that it computes by touching a file, which may go stale with a kill at any time.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

RENEW_S = 0.5  # between two touches, and between two looks
FRESH_S = 2.0  # a process computes for as long after a touch
ENGINE, RUN = "serving", "training"


class Mark:
    """A file that is touched while somebody computes."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.computes"

    def touch(self) -> None:
        """Say so. A mark that cannot be made is none: nothing but speed depends on it."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)

    def is_fresh(self) -> bool:
        """Return whether somebody has said so just now."""
        try:
            age = time.time() - self._path.stat().st_mtime
            return abs(age) < FRESH_S  # a clock that was set back leaves marks of the future
        except OSError:
            return False


class EngineShare:
    """The engine's part: called before each step, on the thread that computes."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._own, self._other = Mark(folder, ENGINE), Mark(folder, RUN)
        self._clock = clock
        self._next = 0.0
        self._all = torch.get_num_threads()
        self._threads = self._all

    def __call__(self) -> None:
        """Say that the engine computes, and take the threads that it may have now."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + RENEW_S
        self._own.touch()
        threads = (self._all + 1) // 2 if self._other.is_fresh() else self._all
        if threads != self._threads:
            torch.set_num_threads(threads)
            self._threads = threads


def share_run(folder: Path) -> None:
    """Keep this process, a run, on half of its cores whenever an engine computes; return at once.

    Where there is one core, or the system knows no affinity, nothing is kept anywhere.
    """
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return
    cores = sorted(os.sched_getaffinity(0))
    half = cores[(len(cores) + 1) // 2 :]
    own, other = Mark(folder, RUN), Mark(folder, ENGINE)

    def watch() -> None:
        while True:
            own.touch()
            _keep_on(half if other.is_fresh() else cores)
            time.sleep(RENEW_S)

    threading.Thread(target=watch, name="core sharing", daemon=True).start()


def _keep_on(cores: list[int]) -> None:
    """Keep every thread of this process on these cores; those that begin later inherit them."""
    for entry in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            if os.sched_getaffinity(int(entry.name)) != set(cores):
                os.sched_setaffinity(int(entry.name), cores)
