"""A process that is kept running: started, started again after a crash, and ended in order.

It does not know what it runs.
"""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from tunery.cli.console import err

STABLE_S = 60.0  # a process that lived this long is started at once again
MAX_BACKOFF_S = 30.0


class Kept:
    """One process and how often it has failed."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command, self._environment = command, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._start_at = 0.0
        self._failures = 0
        self.ending = False

    @property
    def pid(self) -> int | None:
        """Return the process's id, or None where none runs."""
        return None if self._process is None else self._process.pid

    @property
    def lives(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    def keep(self) -> None:
        """Start it if it does not run; after a crash, wait longer each time."""
        now = time.monotonic()
        if self.ending or self.lives:
            return
        if self._process is not None:
            self._note_end(self._process, now)
        elif now >= self._start_at:
            self._started = now
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is for the one that keeps it
                )
            except OSError as error:  # no memory for one more, say: the others must live on
                self._note_failure(f"cannot be started ({error.strerror})", now)

    def _note_end(self, process: subprocess.Popen[bytes], now: float) -> None:
        code = process.wait()
        if now - self._started > STABLE_S:
            self._failures = 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        self._close()
        self._note_failure(how, now)

    def _note_failure(self, how: str, now: float) -> None:
        self._failures += 1
        delay = min(MAX_BACKOFF_S, 0.5 * 2 ** (self._failures - 1))
        err.print(f"The {self.name} {how}; starting it again in {delay:.1f} s.")
        self._start_at = now + delay

    def end(self) -> None:
        """Ask it to end; it is not started again."""
        self.ending = True
        if self._process is not None and self.lives:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for its end, and kill it after `seconds`."""
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._close()

    def stop(self, seconds: float) -> None:
        """End it, within `seconds`."""
        self.end()
        self.wait(seconds)

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
