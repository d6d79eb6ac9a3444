"""Text from tokens, piece by piece: no cut character, no part of a stop string.

Counts the tokens whose text has been given out, so that what is said of them goes with it.
"""

from collections import deque

from tunery.datasets.tokenizer import TextTokenizer

_CUT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Turns one answer's tokens into text that can be sent at once."""

    def __init__(self, tokenizer: TextTokenizer, stop: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []
        self._start = 0  # decoding starts here: a token's text depends on the one before it
        self._read = 0  # tokens whose text has been taken
        self._held = ""  # text that may turn out to begin a stop string
        self._taken = 0  # characters of all text that was taken
        self._sent = 0  # characters given out
        # Tokens and characters up to each place where both end, so far as it is not given out.
        self._ends: deque[tuple[int, int]] = deque()
        self._delivered_characters = 0
        self.stopped = False
        self.delivered = 0
        """How many tokens, from the first, have all their text given out; at the end, any of it."""

    def add(self, token: int) -> str:
        """Return the text that `token` makes certain; `stopped` tells of a stop string."""
        self._ids.append(token)
        known = self._tokenizer.decode(self._ids[self._start : self._read])
        text = self._tokenizer.decode(self._ids[self._start :])
        if text.endswith(_CUT) or len(text) <= len(known):
            return ""
        self._start, self._read = self._read, len(self._ids)
        self._taken += len(text) - len(known)
        self._ends.append((self._read, self._taken))
        return self._release(text[len(known) :])

    def close(self) -> str:
        """Return what was held back, at the end of an answer that no stop string ended."""
        known = self._tokenizer.decode(self._ids[self._start : self._read])
        rest = self._tokenizer.decode(self._ids[self._start :])[len(known) :]
        text = self._release(rest)
        if not self.stopped:
            text += self._held
            self._held = ""
            self.delivered = len(self._ids)
        return text

    def _release(self, new: str) -> str:
        text = self._held + new
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped = True
            self._held = ""
            self._sent += min(found)
            self._deliver_cut()
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        self._sent += len(text) - keep
        self._deliver()
        return text[: len(text) - keep]

    def _deliver(self) -> None:
        while self._ends and self._ends[0][1] <= self._sent:
            self.delivered, self._delivered_characters = self._ends.popleft()

    def _deliver_cut(self) -> None:
        """Count the tokens that have a part in the text that a stop string has left."""
        self._deliver()
        start = max(0, self.delivered - 1)
        before = len(self._tokenizer.decode(self._ids[start : self.delivered]))
        left = self._tokenizer.decode(self._ids[start:])[before:]
        left = left[: self._sent - self._delivered_characters]
        found = ""
        while self.delivered < len(self._ids):
            longer = self._tokenizer.decode(self._ids[start : self.delivered + 1])[before:]
            if found.startswith(left) and longer != left:
                return  # equal: one more byte of a broken last character
            found = longer
            self.delivered += 1


def _overlap(text: str, stop: str) -> int:
    """Return how many of the last characters of `text` begin `stop`."""
    return next(
        (n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0
    )
