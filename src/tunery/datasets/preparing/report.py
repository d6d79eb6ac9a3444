"""The report: all that was found, as one value that the page, the API and the terminal show."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tunery.datasets.preparing.conversations import Conversations
from tunery.datasets.preparing.estimate import Estimate, estimate
from tunery.datasets.preparing.findings import Finding
from tunery.datasets.preparing.labels import Labels
from tunery.datasets.preparing.languages import Languages
from tunery.datasets.preparing.spread import Spread
from tunery.datasets.preparing.survey import Survey
from tunery.datasets.preparing.writing import Decision
from tunery.domain.files import LineFormat
from tunery.domain.models import BaseModel

_MAX_LABELS = 50


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file as it was read: `lines` are its items, `fit` of them can be trained on."""

    role: str  # "training" or "validation"
    name: str
    format: str
    holds: str
    unit: str
    size_bytes: int
    lines: int
    fit: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a number is spread over the lines; `bars` are (from, to, lines)."""

    name: str
    least: int
    low: int
    median: int
    high: int
    most: int
    mean: float
    total: int
    bars: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A file for training, as it is or would be written."""

    role: str
    examples: int
    tokens: int | None
    learned_tokens: int | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in a file, and what becomes of it."""

    files: tuple[FileRead, ...]
    line_format: str
    task: str
    labels: dict[str, int]
    languages: dict[str, int]
    findings: tuple[Finding, ...]
    distributions: tuple[Distribution, ...]
    written: tuple[Written, ...]
    base: str | None = None
    max_tokens: int | None = None
    estimate: Estimate | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON value."""
        return asdict(self)


def report_of(
    result: Survey, decision: Decision, base: BaseModel | None, fixed: Sequence[str] = ()
) -> Report:
    """Return the report of a survey and what was decided; `fixed` are the findings mended."""
    line_format = result.expected or LineFormat.CHAT
    task = result.observer(Labels).task()
    pairs = result.observer(Languages).pairs
    train = decision.outcomes["train"]
    cost = None
    if base is not None and result.counts is not None:
        cost = estimate(base, line_format, train.examples, train.tokens)
    shown = sorted(pairs.items(), key=lambda one: (-one[1], one[0]))
    return Report(
        files=tuple(_files(result)),
        line_format=str(line_format),
        task=task.kind,
        labels=dict(list(task.labels.items())[:_MAX_LABELS]),
        languages={f"{asked} → {answered}": count for (asked, answered), count in shown[:30]},
        findings=tuple(replace(one, fixed=one.kind in fixed) for one in result.findings),
        distributions=tuple(_distributions(result)),
        written=tuple(_written(result, decision)),
        base=None if result.counts is None else result.counts.base,
        max_tokens=None if result.counts is None else result.counts.max_tokens,
        estimate=cost,
    )


def _files(result: Survey) -> list[FileRead]:
    found = []
    for place, reading in enumerate(result.readings):
        validation = place == 1
        states = result.of_file(result.states, validation=validation)
        found.append(
            FileRead(
                "validation" if validation else "training",
                reading.name,
                reading.source.kind,
                str(reading.plan.shape),
                reading.source.unit,
                reading.source.size_bytes,
                len(states),
                sum(map(bool, states)),
            )
        )
    return found


def _distributions(result: Survey) -> list[Distribution]:
    seen: Conversations = result.observer(Conversations)
    named: list[tuple[str, Spread]] = []
    if result.counts is not None:
        named.append(("tokens a line", result.counts.tokens))
        named.append(("learned tokens a line", result.counts.learned_tokens))
    named.append(("messages a line", seen.messages))
    named.append(("characters a line", seen.characters))
    named.append(("characters of the last answer", seen.answers))
    found = []
    for name, spread in named:
        if spread.count:
            one = spread.summary()
            found.append(
                Distribution(
                    name,
                    one.least,
                    one.low,
                    one.median,
                    one.high,
                    one.most,
                    round(one.mean, 1),
                    one.total,
                    tuple(spread.bars()),
                )
            )
    return found


def _written(result: Survey, decision: Decision) -> list[Written]:
    counted = result.counts is not None
    return [
        Written(
            side,
            outcome.examples,
            outcome.tokens if counted else None,
            outcome.learned_tokens if counted else None,
            None if outcome.path is None else outcome.path.name,
        )
        for side, outcome in decision.outcomes.items()
        if outcome.examples
    ]
