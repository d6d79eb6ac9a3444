"""What kind of task a file teaches; where answers are labels, how often each is given."""

from collections import Counter
from dataclasses import dataclass

from tunery.datasets.preparing.findings import Finding, Places, Severity, lines_text
from tunery.datasets.preparing.views import LineView
from tunery.domain.files import LineFormat

MAX_LABELS = 300
_MAX_CHARACTERS = 120
_SHARE = 3  # OpenAI's tool: labels are fewer than a third of the lines
_FEW = 10
_SKEW = 20  # times as often as another label


@dataclass(frozen=True, slots=True)
class Task:
    """The kind of a task, in the words of OpenAI's tool, and its labels, the commonest first."""

    kind: str  # "classification", "conditional generation", "open-ended generation", "preference"
    labels: dict[str, int]


class Labels:
    """Counts answers, as long as they can be labels."""

    def __init__(self) -> None:
        self._counts: Counter[str] | None = Counter()
        self._lines = 0
        self._asked = False
        self._preference = False

    def see(self, index: int, line: LineView) -> None:
        """Look at a line."""
        del index
        self._lines += 1
        self._asked = self._asked or bool(line.asked)
        self._preference = self._preference or line.kind is LineFormat.PREFERENCE
        if self._counts is None:
            return
        text = line.answer_text.strip()
        if not text or len(text) > _MAX_CHARACTERS:
            self._counts = None
            return
        self._counts[text] += 1
        if len(self._counts) > MAX_LABELS:
            self._counts = None

    def task(self) -> Task:
        """Return what the file teaches."""
        if self._preference:
            return Task("preference", {})
        if not self._asked:
            return Task("open-ended generation", {})
        counts = self._counts
        if counts and len(counts) * _SHARE < self._lines:
            return Task("classification", dict(counts.most_common()))
        return Task("conditional generation", {})

    def findings(self, places: Places) -> list[Finding]:
        """Return what was found."""
        del places
        labels = self.task().labels
        if not labels:
            return []
        found = []
        few = {name: count for name, count in labels.items() if count < _FEW}
        if few:
            shown = ", ".join(f"{name[:40]!r} {count}" for name, count in list(few.items())[-8:])
            found.append(
                Finding(
                    "rare_labels",
                    Severity.NOTICE,
                    f"{lines_text(len(few), 'label')} of {len(labels)} {_has(len(few))} fewer than"
                    f" {_FEW} examples: {shown}.",
                    sum(few.values()),
                    data={"labels": few},
                )
            )
        most, least = max(labels.values()), min(labels.values())
        if len(labels) > 1 and most >= _SKEW * least:
            commonest = next(iter(labels))
            found.append(
                Finding(
                    "label_balance",
                    Severity.NOTICE,
                    f"The label {commonest[:40]!r} is {most // least} times as common as the"
                    " rarest: a model may learn to say it always.",
                    most,
                    data={"most": most, "least": least},
                )
            )
        return found


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
