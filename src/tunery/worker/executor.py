"""Runs training, and the proof's reference, in child processes on this machine.

A child reads its order from standard input and dies when that is closed: it cannot outlive the
worker, however that ends. It answers on standard output; what it writes on standard error is the
worker's log, and its last lines explain a crash.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

from tunery.domain.errors import Unavailable
from tunery.domain.ports.training import (
    OUT_OF_MEMORY,
    ProofRequest,
    RunFailed,
    RunInterrupted,
    TrainingReport,
    TrainingRun,
)
from tunery.worker.memory import oom_kills
from tunery.worker.messages import PAUSE, PROOF, RUN, SCORES, decode_report

_KEPT_LINES = 30


class ChildDied(Exception):
    """The child was killed from outside: what it did can be done again."""


class LocalExecutor:
    """An Executor of processes that start `tunery child ...`."""

    def __init__(
        self,
        environment: Mapping[str, str],
        command: Sequence[str] = (sys.executable, "-m", "tunery", "child"),
        count_oom_kills: Callable[[], int] = oom_kills,
    ) -> None:
        """`environment` holds what children are to read beside what this process was given."""
        self._environment = environment
        self._command = list(command)
        self._count_oom_kills = count_oom_kills

    def start(self, run: TrainingRun) -> "LocalRun":
        """Start a training process."""
        before = self._count_oom_kills()
        child = self._spawn("train", RUN.dump_json(run))
        return LocalRun(child, lambda: self._count_oom_kills() > before)

    def reference(self, request: ProofRequest) -> list[list[list[float]]]:
        """Score with transformers + PEFT in a process of its own."""
        child = self._spawn("reference", PROOF.dump_json(request))
        tail = _Tail(child)
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        answer = child.stdout.read()
        code = child.wait()
        tail.last()
        _close(child)
        if code != 0:
            raise Unavailable(
                f"The publishing check's reference failed: {tail.last()}", code="reference_failed"
            )
        return SCORES.validate_json(answer)

    def _spawn(self, what: str, order: bytes) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [*self._command, what],
            env={**os.environ, **self._environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # it has ended: its exit code says why
            child.stdin.write(order + b"\n")
            child.stdin.flush()  # and left open: its end is the child's end
        return child


class LocalRun:
    """A training process and what it has reported."""

    def __init__(self, child: subprocess.Popen[bytes], memory_ran_out: Callable[[], bool]) -> None:
        """`memory_ran_out` says whether the kernel has killed for want of memory meanwhile."""
        self._child = child
        self._memory_ran_out = memory_ran_out
        self._tail = _Tail(child)
        self._reports: queue.Queue[TrainingReport | None] = queue.Queue()
        self._ended = self._failed = self._asked = False
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        self._thread = threading.Thread(target=self._listen, args=(child.stdout,), daemon=True)
        self._thread.start()

    @property
    def finished(self) -> bool:
        """Whether the process has ended and every report was yielded."""
        return self._ended

    @property
    def pid(self) -> int:
        """Return the process's id."""
        return self._child.pid

    def reports(self, wait_s: float) -> Iterator[TrainingReport]:
        """Yield reports as they come, until none comes for `wait_s` seconds or the run ends.

        Raises ChildDied where the process was killed; an exception inside it comes as RunFailed,
        and so does a want of memory that the process did not live to tell of.
        """
        while not self._ended:
            try:
                report = self._reports.get(timeout=wait_s)
            except queue.Empty:
                return
            if report is not None:
                self._failed = self._failed or isinstance(report, RunFailed | RunInterrupted)
                yield report
                continue
            self._ended = True
            code = self._child.wait()
            if self._failed:
                return
            if self._lacked_memory(code):
                yield OUT_OF_MEMORY
                return
            if code < 0:
                raise ChildDied(f"the training process was killed by {signal.Signals(-code).name}")
            if code > 0:
                yield RunFailed("server_error", f"The training process failed: {self._tail.last()}")

    def _lacked_memory(self, code: int) -> bool:
        """Return whether the process, which did not say why it ended, ended for want of memory."""
        if code == -signal.SIGKILL:
            return self._memory_ran_out()
        return code == -signal.SIGABRT and "bad_alloc" in self._tail.last()  # in a C++ thread

    def pause(self) -> None:
        """Ask for a snapshot and the end, once."""
        if self._asked:
            return
        self._asked = True
        assert self._child.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # it has ended by itself
            self._child.stdin.write(PAUSE + b"\n")
            self._child.stdin.flush()

    def stop(self) -> None:
        """Kill the process if it still runs."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        self._thread.join()
        self._tail.last()
        _close(self._child)

    def _listen(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            if line.endswith(b"\n"):  # a killed child may leave half a line
                try:
                    report = decode_report(line)
                except (KeyError, TypeError, ValueError):
                    report = RunFailed("server_error", "The training process wrote no report.")
                    self._child.kill()
                self._reports.put(report)
                if isinstance(report, RunFailed | RunInterrupted):
                    break
        self._reports.put(None)


def _close(child: subprocess.Popen[bytes]) -> None:
    """Close the pipes to a child that has ended."""
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class _Tail:
    """Passes a child's standard error on and keeps its last lines."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        assert child.stderr is not None  # noqa: S101 - it is a pipe
        self._thread = threading.Thread(target=self._listen, args=(child.stderr,), daemon=True)
        self._thread.start()

    def last(self) -> str:
        """Return the last line with text: of a traceback, the error itself."""
        self._thread.join(timeout=5)
        return next((line for line in reversed(self._lines) if line.strip()), "no message")

    def _listen(self, pipe: IO[bytes]) -> None:
        for raw in pipe:
            line = raw.decode("utf-8", "replace").rstrip()
            self._lines.append(line[:500])
            sys.stderr.write(line + "\n")
