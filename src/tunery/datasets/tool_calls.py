"""An answer's text to what it says and what it calls, piece by piece.

Pieces come out as soon as they are certain: text before a call, a call's name, its arguments as
they grow. What only looks like the beginning of a call is text. It does not know who sends them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunery.datasets.tools import CallForm


@dataclass(frozen=True, slots=True)
class Said:
    """Text that is not of a call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call, from 0, of a function."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of a call's arguments, which are JSON."""

    index: int
    text: str


Piece = Said | CallBegun | Arguments


class CallParser:
    """Reads one answer. `names` are those of the functions that may be called.

    With `required`, the answer has to call: what may still become a call's marks is no text.

    White space before a call is not text, and what follows the last one is not read: calls end an
    answer. One that is cut off within a call's marks has nothing of that call; one that is cut off
    within its arguments has those.
    """

    def __init__(self, form: CallForm, names: Sequence[str], *, required: bool = False) -> None:
        form = form.shown()
        self._required = required
        self._form = form
        self._marker = form.marker
        self._openings = {f"{form.opening}{name}{form.between}": name for name in names}
        self._joints = {
            f"{form.joint}{name}{form.between}": name for name in names if form.joint is not None
        }
        self._held = ""  # not certain yet
        self._calls = 0
        self._said = False
        self._arguments: _Object | None = None  # of the call that is being read
        self._between_calls = False
        self._ended = False

    def feed(self, text: str) -> list[Piece]:
        """Return what `text` makes certain."""
        pieces: list[Piece] = []
        self._held += text
        while self._held and not self._ended and self._step(pieces):
            pass
        return pieces

    @property
    def within_call(self) -> bool:
        """Return whether a call's arguments have begun and not ended."""
        return self._arguments is not None

    def close(self) -> list[Piece]:
        """Return what was held back, at the end of the answer."""
        held, self._held = self._held, ""
        marks = held.strip()
        if self._arguments is not None or self._between_calls or self._ended:
            return []
        certain = self._required or marks.startswith(self._marker)
        if certain and _head(marks, 0, self._openings) is None:
            return []
        return [Said(held)] if held else []

    def _step(self, pieces: list[Piece]) -> bool:
        """Read on; return whether there may be more to read."""
        if self._arguments is not None:
            return self._read_arguments(self._arguments, pieces)
        if self._between_calls:
            return self._read_after_call(pieces)
        return self._read_text(pieces)

    def _read_text(self, pieces: list[Piece]) -> bool:
        start = self._form.opening[0]
        place = self._held.find(start)
        while place >= 0:
            if self._form.after_text or not (self._said or self._held[:place].strip()):
                begun = _head(self._held, place, self._openings)
                if begun is None:  # it may become one
                    self._say(place, pieces)
                    return False
                if begun:
                    self._say(place, pieces)
                    self._held = self._held.lstrip()
                    self._begin(begun, self._openings[begun], pieces)
                    return True
            place = self._held.find(start, place + 1)
        self._say(len(self._held), pieces)
        return False

    def _say(self, end: int, pieces: list[Piece]) -> None:
        """Give out text up to `end`, but for the white space that a call may follow."""
        text = self._held[:end].rstrip()
        if text:
            pieces.append(Said(text))
            self._said = True
            self._held = self._held[len(text) :]

    def _begin(self, head: str, name: str, pieces: list[Piece]) -> None:
        pieces.append(CallBegun(self._calls, name))
        self._held = self._held[len(head) :]
        self._arguments = _Object()
        self._between_calls = False

    def _read_arguments(self, arguments: "_Object", pieces: list[Piece]) -> bool:
        end = arguments.read(self._held)
        pieces.append(Arguments(self._calls, self._held[:end]))
        self._held = self._held[end:]
        if arguments.ended:
            self._arguments = None
            self._between_calls = True
            self._calls += 1
        return bool(self._held)

    def _read_after_call(self, pieces: list[Piece]) -> bool:
        begun = _head(self._held, 0, self._joints)
        if begun:
            self._begin(begun, self._joints[begun], pieces)
            return True
        self._ended = begun == "" and not self._form.closing.startswith(self._held)
        return False


def _head(text: str, place: int, heads: Iterable[str]) -> str | None:
    """Return which of `heads`, and arguments, stand there; "" for none, None if it is too soon."""
    for head in heads:
        if text.startswith(head + "{", place):
            return head
        if (head + "{").startswith(text[place : place + len(head) + 1]):
            return None
    return ""


class _Object:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    @property
    def ended(self) -> bool:
        """Return whether the object is whole."""
        return self._depth == 0

    def read(self, text: str) -> int:
        """Return how many characters of `text` are the object's."""
        for place, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1
        return len(text)
