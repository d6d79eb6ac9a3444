"""Starts the process that checks a file, feeds it, and waits for its report, within bounds."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import orjson

from tunery.datasets.preparing.check_order import CheckOrder
from tunery.domain.errors import InvalidRequest, Overloaded, TuneryError

CHECK_S = 540.0  # the SDK gives up after 600
_AT_ONCE = 2


class FileChecker:
    """Checks files in processes of their own: two at a time, and one for each owner."""

    def __init__(self, check_s: float = CHECK_S, at_once: int = _AT_ONCE) -> None:
        self._check_s = check_s
        self._at_once = at_once
        self._lock = threading.Lock()
        self._owners: set[str] = set()

    def check(self, owner: str, order: CheckOrder, chunks: Iterable[bytes]) -> dict[str, Any]:
        """Return the report on the files whose bytes are `chunks`, as a JSON value.

        Takes as long as it takes to read them: to be called on a thread. Raises Overloaded where
        too many are being checked.
        """
        with self._lock:
            if owner in self._owners or len(self._owners) >= self._at_once:
                raise Overloaded("Other files are being checked; try again.", retry_after_s=5)
            self._owners.add(owner)
        try:
            return self._run(order, chunks)
        finally:
            with self._lock:
                self._owners.discard(owner)

    def _run(self, order: CheckOrder, chunks: Iterable[bytes]) -> dict[str, Any]:
        # Its own settings are none of its business: a file's lines pass through it.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TUNERY_")}
        child = subprocess.Popen(
            [sys.executable, "-m", "tunery.datasets.preparing.checking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, "TOKENIZERS_PARALLELISM": "false"},
        )
        timer = threading.Timer(self._check_s, child.kill)
        timer.start()
        try:
            assert child.stdin is not None  # noqa: S101 - both are pipes
            assert child.stdout is not None  # noqa: S101
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(order.line())
                for chunk in chunks:
                    child.stdin.write(chunk)
            answer = child.stdout.read()  # the report is written when all is read
        finally:
            alive = timer.is_alive()
            timer.cancel()
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        if answer:
            report: dict[str, Any] = orjson.loads(answer)
            return report
        if not alive:
            raise InvalidRequest(
                f"The check took more than {self._check_s:.0f} s; leave out 'model', or check a"
                " part of the file.",
                code="check_timed_out",
            )
        raise TuneryError("The file could not be checked; the service's log says why.")
