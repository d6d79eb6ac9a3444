"""An answer as it is heard: what it says, what it calls, and how likely its words were.

Knows the engine's pieces and a form of calls; who they are told to is not its business.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunery.datasets.tool_calls import Arguments, CallBegun, CallParser, Piece, Said
from tunery.datasets.tools import CallForm
from tunery.domain.ids import new_id
from tunery.domain.ports.engine import Delta, TokenLogprob


@dataclass(slots=True)
class HeardCall:
    """A call as far as it has come; its arguments are JSON unless the answer was cut off."""

    name: str
    id: str = field(default_factory=lambda: new_id("call_"))
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """How an answer's calls are read: their form, who may be called, and whether one must be."""

    form: CallForm
    names: Sequence[str]
    required: bool = False


class Heard:
    """Hears one answer; without a `reading` all of it is text.

    Told are the log-probabilities of the tokens that text is made of: a call's have none.
    """

    def __init__(self, reading: Reading | None) -> None:
        self._parser = (
            None
            if reading is None
            else CallParser(reading.form, reading.names, required=reading.required)
        )
        self._untold: deque[TokenLogprob] = deque()
        self._said_bytes = 0
        self._told_bytes = 0
        self.text = ""
        self.calls: list[HeardCall] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: str | None = None

    @property
    def cut_off(self) -> bool:
        """Return whether the answer ended within a call, by its length or a stop string."""
        return self._parser is not None and self._parser.within_call

    def take(self, delta: Delta) -> tuple[list[Piece], list[TokenLogprob]]:
        """Return what the engine's next piece makes certain, and of which tokens its text is."""
        if self._parser is None:
            pieces: list[Piece] = [Said(delta.text)] if delta.text else []
            told = list(delta.logprobs)
        else:
            pieces = self._parser.feed(delta.text)
            if delta.finish_reason is not None:
                pieces += self._parser.close()
            told = self._tell(delta.logprobs, pieces)
        for piece in pieces:
            self._keep(piece)
        self.logprobs += told
        self.finish_reason = delta.finish_reason
        return pieces, told

    def _keep(self, piece: Piece) -> None:
        match piece:
            case Said(text):
                self.text += text
            case CallBegun(_, name):
                self.calls.append(HeardCall(name))
            case Arguments(index, text):
                self.calls[index].arguments += text

    def _tell(self, new: Sequence[TokenLogprob], pieces: Sequence[Piece]) -> list[TokenLogprob]:
        """Return the tokens that have begun within what is said."""
        self._untold += new
        self._said_bytes += sum(len(one.text.encode()) for one in pieces if isinstance(one, Said))
        told = []
        while self._untold and self._told_bytes < self._said_bytes:
            told.append(self._untold.popleft())
            self._told_bytes += len(told[-1].token_bytes)
        return told
