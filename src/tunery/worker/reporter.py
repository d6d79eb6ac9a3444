"""Reports metrics from a child process of its own, so that a slow or broken report slows nothing.

Each task's reports are written to a child by a thread of theirs. The child ends when its standard
input does, within seconds, and so does what it started.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from tunery.domain.jobs import StepMetrics
from tunery.domain.ports.tracking import TrackedEnd, TrackedRun
from tunery.worker.messages import TRACKED, decode_problem, encode_tracked

MAX_WAITING = 10_000  # lines; a child that is further behind is given up
END_S = 60.0  # to bring a run to its end
STOP_S = 8.0  # the same for a worker that is to stop

FELL_BEHIND = "it took the metrics too slowly"
FAILED = "its process failed; the service's log says more"
LATE = "it did not end in time"


class ChildReporter:
    """A Reporter of processes that start `tunery child wandb`."""

    def __init__(
        self,
        environment: Mapping[str, str],
        command: Sequence[str] = (sys.executable, "-m", "tunery", "child"),
        *,
        end_s: float = END_S,
        stop_s: float = STOP_S,
    ) -> None:
        """`environment` holds what children are to read beside what this process was given."""
        self._environment = environment
        self._command = [*command, "wandb"]
        self._end_s, self._stop_s = end_s, stop_s
        self._live: dict[str, _ChildReports] = {}  # by job: the latest of each
        self._lock = threading.Lock()

    def start(self, run: TrackedRun, warn: Callable[[str], None]) -> "_ChildReports":
        """Start a process, once the job's earlier one has ended: they write the same run."""
        with self._lock:
            earlier = self._live.get(run.job_id)
            reports = _ChildReports(self._spawn, run, warn, self._end_s, earlier)
            self._live = {job: one for job, one in self._live.items() if one.lives}
            self._live[run.job_id] = reports
        return reports

    def close(self) -> None:
        """Give what is under way a few seconds, then kill it."""
        with self._lock:
            live, self._live = list(self._live.values()), {}
        until = time.monotonic() + self._stop_s
        for reports in live:
            reports.kill_after(until - time.monotonic())

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env={**os.environ, **self._environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # killed as a group, with the service that wandb starts
        )


class _ChildReports:
    """A process and the lines that wait for it."""

    def __init__(
        self,
        spawn: Callable[[], subprocess.Popen[bytes]],
        run: TrackedRun,
        warn: Callable[[str], None],
        end_s: float,
        earlier: "_ChildReports | None",
    ) -> None:
        self._spawn, self._warn, self._end_s = spawn, warn, end_s
        self._lines: queue.Queue[bytes | None] = queue.Queue(MAX_WAITING)
        self._lines.put(TRACKED.dump_json(run) + b"\n")
        self._child: subprocess.Popen[bytes] | None = None
        self._problem: str | None = None
        self._cut = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(earlier,), name="reports", daemon=True
        )
        self._thread.start()

    @property
    def lives(self) -> bool:
        """Whether there is still something to be done."""
        return self._thread.is_alive()

    @property
    def pid(self) -> int | None:
        """Return the process's id, once there is one."""
        return None if self._child is None else self._child.pid

    def step(self, metrics: StepMetrics) -> None:
        """Report a step."""
        self._put(encode_tracked(metrics))

    def close(self, end: TrackedEnd) -> None:
        """Report the end and no more."""
        self._put(encode_tracked(end))
        self._put(None)

    def kill_after(self, seconds: float) -> None:
        """Wait for the end, then bring it about."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._kill()
            self._thread.join(1.0)

    def _put(self, line: bytes | None) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._kill(FELL_BEHIND)

    def _kill(self, problem: str | None = None) -> None:
        self._cut.set()
        self._problem = self._problem or problem
        child = self._child
        if child is not None and child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)

    def _work(self, earlier: "_ChildReports | None") -> None:
        if earlier is not None:
            earlier._thread.join()
        if self._cut.is_set():
            if self._problem is not None:
                self._warn(self._problem)
            return
        try:
            child = self._child = self._spawn()
        except OSError:
            self._warn(FAILED)
            return
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - pipes
        listener = threading.Thread(target=self._listen, args=(child.stdout,), daemon=True)
        listener.start()
        with contextlib.suppress(BrokenPipeError):  # it has ended: its exit code says why
            while (line := self._next()) is not None:
                child.stdin.write(line)
                if self._lines.empty():
                    child.stdin.flush()
            child.stdin.flush()
        if self._cut.is_set():
            self._kill()
        try:
            code = child.wait(self._end_s)  # its input stays open: the end of that is the worker's
        except subprocess.TimeoutExpired:
            self._kill(LATE)
            code = child.wait()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        listener.join()
        child.stdout.close()
        if self._problem is not None or (code != 0 and not self._cut.is_set()):
            self._warn(self._problem or FAILED)

    def _next(self) -> bytes | None:
        while not self._cut.is_set():
            with contextlib.suppress(queue.Empty):
                return self._lines.get(timeout=1.0)
        return None

    def _listen(self, pipe: IO[bytes]) -> None:
        """Read what the child says of its failure, on one line."""
        for line in pipe:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._problem = self._problem or decode_problem(line)
