"""When a run will have ended: from what its tokens have cost so far, and what is still to come.

Learning from a token costs about three times what looking at one does: forward and, twice as dear,
backward (Kaplan et al. 2020, section 2.1).
"""

import time
from collections.abc import Callable

_LEARNED, _SEEN = 3, 1


class Progress:
    """Tokens computed in this process, and tokens to come."""

    def __init__(
        self, learned: int, seen: int, proven: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Of the tokens to come, `learned` are trained on, `seen` validated, `proven` published.

        Those are scored by the reference, in float32: as dear as learning.
        """
        self._left = _LEARNED * (learned + proven) + _SEEN * seen
        self._clock = clock
        self._began = self._last = clock()
        self._done = 0

    def begin(self) -> None:
        """Note that a step begins."""
        self._last = self._clock()

    def learned(self, tokens: int) -> float | None:
        """Note that a step ends; return its tokens a second."""
        self._note(_LEARNED * tokens)
        seconds = self._clock() - self._last
        return tokens / seconds if seconds > 0 else None

    def seen(self, tokens: int) -> None:
        """Note tokens that were validated."""
        self._note(_SEEN * tokens)

    @property
    def seconds_left(self) -> float | None:
        """Return how long the rest will take, if anything was done yet."""
        if not self._done:
            return None
        return (self._clock() - self._began) * max(0, self._left) / self._done

    def _note(self, cost: int) -> None:
        self._done += cost
        self._left -= cost
