"""uvicorn's server, but one that goes on listening while it drains: a refusal can be told."""

import signal
import time
from types import FrameType

import uvicorn

from tunery.api.draining import Drain

_LAST_WORDS_S = 1  # for what is broken off to be told so


class DrainingServer(uvicorn.Server):
    """Ends once the requests it has are answered, or after a time."""

    def __init__(self, config: uvicorn.Config, drain: Drain, seconds: float) -> None:
        config.timeout_graceful_shutdown = _LAST_WORDS_S
        super().__init__(config)
        self._drain, self._seconds = drain, seconds
        self._deadline = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; Ctrl-C after that ends at once.

        A second SIGTERM does not: systemd sends it to every process, and `tunery up` passes on its
        own.
        """
        if self._drain.begun:
            if sig != signal.SIGTERM:
                super().handle_exit(sig, frame)
            return
        self._drain.begun = True
        self._deadline = time.monotonic() + self._seconds

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether there is something left to wait for."""
        if self._drain.begun and not (self._drain.active and time.monotonic() < self._deadline):
            self.should_exit = True
        return await super().on_tick(counter)
