"""How conversations are built: who speaks, under which system messages, how much."""

import heapq
from collections import Counter

from tunery.datasets.preparing.findings import (
    MAX_PLACES,
    Finding,
    Places,
    Sample,
    Severity,
    lines_text,
)
from tunery.datasets.preparing.spread import Spread
from tunery.datasets.preparing.views import LineView
from tunery.domain.files import LineFormat

_MAX_SYSTEMS = 1000
_FEW_SHARE = 0.05  # of lines without a system message, where others have one
_LONG_CHARACTERS = 10_000  # of OpenAI's tool
_LEAST_FOR_OUTLIERS = 20


class Conversations:
    """Counts messages and characters."""

    def __init__(self) -> None:
        self.messages, self.characters, self.answers = Spread(), Spread(), Spread()
        self._longest: list[tuple[int, int]] = []
        self._shortest: list[tuple[int, int]] = []
        self._systems: Counter[int] = Counter()
        self._with_system = 0
        self._chats = 0
        self._no_system, self._no_user, self._long = Sample(), Sample(), Sample()

    def see(self, index: int, line: LineView) -> None:
        """Look at a line."""
        size = len(line.said)
        self.characters.add(size)
        self.answers.add(len(line.answer_text))
        # Of equal ones the first is kept, so that what is told does not depend on the rest.
        for heap, rank in ((self._longest, size), (self._shortest, -size)):
            if len(heap) < MAX_PLACES:
                heapq.heappush(heap, (rank, -index))
            elif rank > heap[0][0]:
                heapq.heapreplace(heap, (rank, -index))
        if size > _LONG_CHARACTERS:
            self._long.add(index, f"{size:,} characters")
        if line.kind is LineFormat.COMPLETION:
            return
        self._chats += 1
        self.messages.add(len(line.messages))
        if line.system is None:
            self._no_system.add(index)
        else:
            self._with_system += 1
            if len(self._systems) < _MAX_SYSTEMS:
                self._systems[hash(line.system)] += 1
        if not line.user_text and not any(message["role"] == "user" for message in line.messages):
            self._no_user.add(index)

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        found = []
        if self._chats and not self._with_system:
            found.append(
                Finding(
                    "missing_system",
                    Severity.NOTICE,
                    "No line has a system message. Should the model be asked with one, give it"
                    " here too (--system).",
                    self._chats,
                )
            )
        elif self._no_system.count:
            found.append(
                Finding(
                    "missing_system",
                    Severity.NOTICE,
                    f"{lines_text(self._no_system.count)} {_have(self._no_system.count)} no system"
                    " message, and others have one.",
                    self._no_system.count,
                    places(self._no_system),
                )
            )
        if len(self._systems) > 1:
            many = len(self._systems)
            least = "at least " if many == _MAX_SYSTEMS else ""
            found.append(
                Finding(
                    "system_messages",
                    Severity.NOTICE,
                    f"There are {least}{many:,} different system messages.",
                    many,
                )
            )
        if self._no_user.count:
            count = self._no_user.count
            found.append(
                Finding(
                    "missing_user",
                    Severity.NOTICE,
                    f"{lines_text(count)} {_have(count)} no message of a user.",
                    count,
                    places(self._no_user),
                )
            )
        if self._long.count:
            count = self._long.count
            found.append(
                Finding(
                    "long_lines",
                    Severity.NOTICE,
                    f"{lines_text(count)} {_have(count)} more than"
                    f" {_LONG_CHARACTERS:,} characters.",
                    count,
                    places(self._long),
                )
            )
        return [*found, *self._outliers(places)]

    def _outliers(self, places: Places) -> list[Finding]:
        if self.characters.count < _LEAST_FOR_OUTLIERS:
            return []
        low, high = self.characters.fences()
        counts = self.characters.counts.items()
        far = sum(count for size, count in counts if size > high or size < low)
        told = [(size, -index) for size, index in self._longest if size > high]
        told += [(-size, -index) for size, index in self._shortest if -size < low]
        if not told:
            return []
        told.sort(key=lambda one: one[1])
        first = [(index, f"{size:,} characters") for size, index in told[:MAX_PLACES]]
        count = max(far, len(first))
        median = self.characters.quantile(0.5)
        return [
            Finding(
                "length_outliers",
                Severity.NOTICE,
                f"{lines_text(count)} {'is' if count == 1 else 'are'} far longer or shorter than"
                f" the rest, whose median is {median:,} characters.",
                count,
                places(Sample(count, first)),
            )
        ]


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
