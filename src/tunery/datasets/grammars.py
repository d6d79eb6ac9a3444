"""Grammars for answers, checked before any work is done for them.

Knows no schema and no tokenizer. A grammar is text in llguidance's dialect of Lark; whether an
answer can follow it, a child process finds out, which is killed when it takes too long.
"""

import atexit
import contextlib
import hashlib
import select
import subprocess
import sys
import threading
from functools import cache

import orjson

from tunery.datasets.bounded_grammars import LENGTH_BYTES
from tunery.domain.errors import InvalidRequest, Overloaded
from tunery.domain.ports.engine import INVALID_GRAMMAR

UNFOLLOWED = "The answer's grammar cannot be followed: "  # before the reason
TOO_SLOW = "it takes too much time or memory to compile"
MAX_GRAMMAR_BYTES = 512 * 1024
_CHECK_S = 5.0
_START_S = 30.0
_MOST_WAITING = 8
_KNOWN_SLOW = 1024


def flaw_of(grammar: str) -> str | None:
    """Return why no answer can follow the grammar, or None: as far as its start tells.

    Takes milliseconds, and at most some seconds: to be called on a thread. Raises Overloaded where
    too many are being checked.
    """
    data = grammar.encode()
    if len(data) > MAX_GRAMMAR_BYTES:
        return f"it is larger than {MAX_GRAMMAR_BYTES} bytes"
    return _checker().flaw_of(data)


def refusal(reason: str) -> InvalidRequest:
    """Return the error of a grammar that cannot be followed."""
    return InvalidRequest(UNFOLLOWED + reason, code=INVALID_GRAMMAR)


class GrammarChecker:
    """The child process that tries grammars out, one at a time; it starts with the first one.

    Not more than `most_waiting` threads wait for it.
    """

    def __init__(self, check_s: float = _CHECK_S, most_waiting: int = _MOST_WAITING) -> None:
        self._check_s = check_s
        self._places = threading.BoundedSemaphore(most_waiting)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        # What took too long is not tried again: whoever sends it often would hold up the others.
        self._slow: dict[bytes, None] = {}

    @property
    def child_pid(self) -> int | None:
        """Return the child's process id, or None where there is none."""
        return None if self._child is None else self._child.pid

    def flaw_of(self, grammar: bytes) -> str | None:
        """Return why no answer can follow the grammar, or None."""
        digest = hashlib.sha256(grammar).digest()
        if not self._places.acquire(blocking=False):
            raise Overloaded("Too many grammars are being checked; try again.")
        try:
            with self._lock:
                if digest not in self._slow:
                    with contextlib.suppress(TimeoutError, BrokenPipeError):
                        return self._ask(grammar)
                    self.close()
                    if len(self._slow) >= _KNOWN_SLOW:
                        self._slow.pop(next(iter(self._slow)))
                    self._slow[digest] = None
        finally:
            self._places.release()
        return TOO_SLOW

    def close(self) -> None:
        """End the child process, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _ask(self, grammar: bytes) -> str | None:
        """Return the child's answer; raise TimeoutError or BrokenPipeError without one."""
        child = self._child
        if child is None or child.poll() is not None:
            self.close()
            child = self._child = subprocess.Popen(
                [sys.executable, "-m", "tunery.datasets.bounded_grammars"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            _line(child, _START_S)
        assert child.stdin is not None  # noqa: S101 - it is a pipe
        child.stdin.write(len(grammar).to_bytes(LENGTH_BYTES) + grammar)
        child.stdin.flush()
        found: str | None = orjson.loads(_line(child, self._check_s))
        return found


def _line(child: subprocess.Popen[bytes], wait_s: float) -> bytes:
    """Return the child's next line, which is shorter than what a pipe takes at once."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    if not select.select([child.stdout], [], [], wait_s)[0]:
        raise TimeoutError
    line = child.stdout.readline()
    if not line.endswith(b"\n"):
        raise BrokenPipeError
    return line


@cache
def _checker() -> GrammarChecker:
    checker = GrammarChecker()
    atexit.register(checker.close)
    return checker
