"""What training will learn of a file: line by line as a table, and all together in a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunery.datasets.rendering import Rendered

MAX_LISTED_LINES = 20
HEADER = b"line,tokens,kept_tokens,learned_tokens,lost_learned_tokens\n"


@dataclass(frozen=True, slots=True)
class Counted:
    """A line's tokens: all of them, those before the cut, those learned, and lost to the cut."""

    whole: int
    kept: int
    learned: int
    lost: int


def counted(sides: Sequence[Rendered], max_tokens: int) -> Counted:
    """Return the tokens of a line of one side, or of a preference's two."""
    whole = kept = learned = wanted = 0
    nothing_left = False
    for number, side in enumerate(sides):
        start = side.supervised.index(True) if number else 0  # before it is the conversation
        whole += len(side.token_ids) - start
        kept += max(0, min(len(side.token_ids), max_tokens) - start)
        own = sum(side.supervised[1:max_tokens])  # the first of all has none before it
        wanted += sum(side.supervised[1:])
        learned += own
        nothing_left = nothing_left or not own
    if nothing_left:
        learned = 0
    return Counted(whole, kept, learned, wanted - learned)


@dataclass(slots=True)
class Account:
    """The sums over the lines so far; `lost_lines` has the first of those that `lost` counts.

    Tokens are counted after the cut. A line is lost where the cut has left it nothing to learn.
    """

    max_tokens: int
    examples: int = 0
    tokens: int = 0
    learned: int = 0
    cut: int = 0
    lost: int = 0
    lost_lines: list[int] = field(default_factory=list)

    def add(self, line: int, *sides: Rendered) -> bytes:
        """Count a line, from 1, and return its row in the table.

        A preference has two sides: their answers count, and the conversation before them once.
        Where nothing is left to learn of one, there is nothing to learn of both.
        """
        one = counted(sides, self.max_tokens)
        self.examples += 1
        self.tokens += one.kept
        self.learned += one.learned
        self.cut += one.kept < one.whole
        if not one.learned:
            self.lost += 1
            if len(self.lost_lines) < MAX_LISTED_LINES:
                self.lost_lines.append(line)
        return b"%d,%d,%d,%d,%d\n" % (line, one.whole, one.kept, one.learned, one.lost)

    def summary(self) -> str:
        """Return the sums as a sentence without its end."""
        text = (
            f"{_count(self.examples, 'example')}; {self.learned} of"
            f" {_count(self.tokens, 'token')} are learned"
        )
        if not self.cut:
            return text
        cut = "1 line was" if self.cut == 1 else f"{self.cut} lines were"
        text += f"; {cut} cut at {_count(self.max_tokens, 'token')}"
        if not self.lost:
            return text
        listed = ", ".join(map(str, self.lost_lines))
        hidden = self.lost - len(self.lost_lines)
        more = f", and {hidden} more" if hidden else ""
        lines = "line" if self.lost == 1 else "lines"
        return f"{text}, {self.lost} lost every learned token: {lines} {listed}{more}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
