"""What was found in a file: kinds of things, how often, and on which lines."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tunery.datasets.preparing.views import LineView

MAX_PLACES = 20


class Severity(StrEnum):
    """What a finding asks for, the most urgent first."""

    NECESSARY = "necessary"  # the service would refuse the file
    RECOMMENDED = "recommended"  # the model would be worse, or its score better than it is
    NOTICE = "notice"  # to be known, and decided on by whoever knows the data


@dataclass(frozen=True, slots=True)
class Place:
    """One line that something was found on, and what, where that is not the same for all.

    `file` is "training" or "validation"; `line` is the number of its line, row or item there.
    """

    file: str
    line: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of thing that was found.

    `places` are the first of `count`. `fix` is the question whether to mend it, where it can be;
    `fixed` is whether that was done.
    """

    kind: str
    severity: Severity
    message: str
    count: int = 0
    places: tuple[Place, ...] = ()
    fix: str | None = None
    fixed: bool = False
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Sample:
    """How many lines something is true of, and the first of them by their index."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, index: int, detail: str = "") -> None:
        """Count a line."""
        self.count += 1
        if len(self.first) < MAX_PLACES:
            self.first.append((index, detail))


class Places(Protocol):
    """Turns indexes of lines into places in files."""

    def __call__(self, sample: Sample) -> tuple[Place, ...]:
        """Return where a sample's lines are."""
        ...

    def number(self, index: int) -> int:
        """Return a line's number in its file."""
        ...


class Observer(Protocol):
    """Looks at each fit line once, and says at the end what it found.

    To look for one more kind of thing, write one more observer and name it in `survey.observers`.
    """

    def see(self, index: int, line: LineView) -> None:
        """Look at a line; indexes count fit and unfit lines of all files, from 0."""
        ...

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        ...


def lines_text(count: int, unit: str = "line") -> str:
    """Return a number of lines in words."""
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
