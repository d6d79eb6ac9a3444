"""Calls async code from the worker's threads: one event loop on a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Portal:
    """An event loop that other threads hand coroutines to."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="portal", daemon=True)
        self._thread.start()

    def call(self, make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Run a coroutine and return its result, or raise its error."""
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result()

    def close(self) -> None:
        """Stop the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
