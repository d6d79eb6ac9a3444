"""The first reading of a file: every line is checked, and what is found is told.

It keeps a few numbers for each line, so that a second reading (`writing`) knows which lines to
keep, and on which side. No line's text is kept.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tunery.datasets.checks import LineChecker
from tunery.datasets.preparing.affixes import Affixes
from tunery.datasets.preparing.columns import listed
from tunery.datasets.preparing.conversations import Conversations
from tunery.datasets.preparing.equal_lines import EqualLines
from tunery.datasets.preparing.faults import REMOVED, Fault, fault_of
from tunery.datasets.preparing.findings import (
    MAX_PLACES,
    Finding,
    Observer,
    Place,
    Sample,
    Severity,
    lines_text,
)
from tunery.datasets.preparing.images import image_fault, parts_of, without_images
from tunery.datasets.preparing.items import Item, Source
from tunery.datasets.preparing.labels import Labels
from tunery.datasets.preparing.languages import Languages
from tunery.datasets.preparing.near_lines import NearLines
from tunery.datasets.preparing.repairs import Line, Repair, mended
from tunery.datasets.preparing.shapes import Plan
from tunery.datasets.preparing.split import joined
from tunery.datasets.preparing.token_counts import TokenCounts
from tunery.datasets.preparing.views import LineView, view_of
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import LineFormat
from tunery.domain.jobs import MIN_EXAMPLES

FEW_EXAMPLES = 100
_UNFIT, _FIT, _MENDED = 0, 1, 2
Told = Callable[[str, int, int], None]  # which file, how many of its bytes are read, of how many


@dataclass(frozen=True, slots=True)
class Reading:
    """A file, how it is read, and what its items become."""

    name: str
    source: Source
    plan: Plan


def observers() -> list[Observer]:
    """Return what looks at the content of each fit line, besides what a survey asks by name."""
    return [Conversations(), Affixes(), Languages(), Labels()]


@dataclass(slots=True)
class Survey:
    """What the first reading found. Lines of both files have one index, in the order of reading.

    `states` is 0 for an unfit line, 2 for one that repairs make fit; `validation_from` is the
    first index of the validation file, if there is one.
    """

    readings: Sequence[Reading]
    seed: int
    counts: TokenCounts | None
    validation_from: int | None = None
    expected: LineFormat | None = None
    numbers: "array[int]" = field(default_factory=lambda: array("I"))
    states: bytearray = field(default_factory=bytearray)
    equal: EqualLines = field(init=False)
    near: NearLines = field(init=False)
    content: list[Observer] = field(default_factory=observers)
    faults: dict[Fault, Sample] = field(default_factory=dict)
    repairs: dict[str, tuple[Repair, Sample]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    extra_columns: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make what compares lines."""
        self.equal = EqualLines(self.seed)
        self.near = NearLines()

    def observer(self, kind: type[Any]) -> Any:
        """Return the observer of a kind."""
        return next(one for one in self.content if isinstance(one, kind))

    def count(self, *, validation: bool) -> int:
        """Return how many lines of a file are fit, repairs included."""
        return sum(map(bool, self.of_file(self.states, validation=validation)))

    def of_file(self, numbers: Any, *, validation: bool) -> Any:
        """Return the part of a sequence over all lines that is of one file."""
        start = self.validation_from
        if validation:
            return numbers[:0] if start is None else numbers[start:]
        return numbers if start is None else numbers[:start]

    def number(self, index: int) -> int:
        """Return a line's number in its file."""
        return self.numbers[index]

    def __call__(self, sample: Sample) -> tuple[Place, ...]:
        """Return where a sample's lines are."""
        start = self.validation_from
        return tuple(
            Place(
                "training" if start is None or index < start else "validation",
                self.numbers[index],
                detail,
            )
            for index, detail in sample.first[:MAX_PLACES]
        )


def survey(
    training: Reading,
    validation: Reading | None,
    *,
    counts: TokenCounts | None,
    seed: int,
    told: Told = lambda name, done, size: None,
) -> Survey:
    """Read the files once and return what is found."""
    readings = [training] if validation is None else [training, validation]
    result = Survey(readings, seed, counts)
    with closing(result.near):
        result.expected = _read_all(result, told)
        _pad(result)
        joined(result.equal.group, result.near.compare())
    plan = training.plan
    if plan.mapping is not None:
        result.extra_columns = plan.mapping.left_out(plan.columns)
    found = [*_unfit(result), *_of_numbers(result), *_of_content(result)]
    result.findings = sorted(found, key=lambda one: list(Severity).index(one.severity))
    return result


def _read_all(result: Survey, told: Told) -> LineFormat | None:
    """Look at every line of the files; return what they are."""
    checker = LineChecker()
    for place, reading in enumerate(result.readings):
        if place == 1:
            result.validation_from = len(result.numbers)
            result.equal.validation_from = result.validation_from
            result.near.validation_from = result.validation_from
        size = reading.source.size_bytes

        def progress(done: int, name: str = reading.name, size: int = size) -> None:
            told(name, done, size)

        for item, line, problem in lines_of(reading, progress):
            _look(result, checker, item, line, problem)
    return checker.expected


def lines_of(
    reading: Reading, progress: Callable[[int], None]
) -> Iterator[tuple[Item, Line | None, str | None]]:
    """Yield each item of a file with its line, unchecked, or with why there is none."""
    plan = reading.plan
    for item in reading.source.read(progress):
        line, problem = plan.line(item)
        yield item, line, problem


def fit_line(
    checker: LineChecker, line: Line
) -> tuple[Line | None, tuple[Repair, ...], Fault | None, str]:
    """Return a line that the service takes, by what repairs; or what is wrong with it."""
    problem = _problem_of(checker, line)
    if problem is None:
        return line, (), None, ""
    changed, repairs = mended(line)
    if repairs:
        again = _problem_of(checker, changed)
        if again is None:
            return changed, repairs, None, ""
        line, problem = changed, again
    if next(parts_of(line), None) is not None:
        fault = image_fault(line)
        if fault is not None:
            return None, (), Fault.IMAGES, fault
        other = _problem_of(checker, without_images(line))
        if other is None:
            shown = "has images, each of them as OpenAI takes it"
            return None, (), Fault.IMAGES, shown
    return None, (), fault_of(line, problem), problem


def _problem_of(checker: LineChecker, line: Line) -> str | None:
    problem = checker.problem_of(line)
    if problem is None and (blank := _blank(line)) is not None:
        return blank
    return problem


def _blank(line: Line) -> str | None:
    """Return what is wrong with a line whose answer is white space: it says nothing."""
    if "completion" in line:
        answer = line["completion"]
    elif "messages" in line:
        last = line["messages"][-1]
        answer = last.get("content")
        if last.get("tool_calls") or last.get("function_call"):
            return None
    else:
        return None
    if isinstance(answer, str) and answer.isspace():
        return "the answer is nothing but white space, and empty"
    return None


def _look(
    result: Survey, checker: LineChecker, item: Item, line: Line | None, problem: str | None
) -> None:
    index = len(result.numbers)
    result.numbers.append(item.number)
    if line is None:
        kind = Fault.DATA_TYPE if problem and _is_type(problem) else Fault.UNREADABLE
        _unfit_line(result, index, kind, problem or "")
        return
    fit, repairs, fault, why = fit_line(checker, line)
    if fit is None:
        _unfit_line(result, index, fault or Fault.OTHER, why)
        return
    view = view_of(fit)
    if result.counts is not None:
        try:
            result.counts.see(index, view)
        except InvalidRequest as error:
            _unfit_line(result, index, Fault.OTHER, error.message)
            return
    result.states.append(_MENDED if repairs else _FIT)
    for repair in repairs:
        result.repairs.setdefault(repair.name, (repair, Sample()))[1].add(index)
    _compare(result, index, view)
    for observer in result.content:
        observer.see(index, view)


def _compare(result: Survey, index: int, view: LineView) -> None:
    result.equal.see(index, view)
    if not result.equal.is_copy[index]:
        result.near.see(index, view)


def _is_type(problem: str) -> bool:
    return problem.startswith(("not JSON", "needed a JSON", "is ")) and "UTF-8" not in problem


def _unfit_line(result: Survey, index: int, fault: Fault, why: str) -> None:
    result.states.append(_UNFIT)
    result.faults.setdefault(fault, Sample()).add(index, why)


def _pad(result: Survey) -> None:
    """Have every array of numbers as long as there are lines."""
    size = len(result.numbers)
    equal = result.equal
    while len(equal.group) < size:
        equal.group.append(len(equal.group))
    equal.is_copy.extend(bytes(size - len(equal.is_copy)))
    equal.question_hashes.extend([0] * (size - len(equal.question_hashes)))
    if result.counts is not None:
        counts = result.counts
        counts.is_lost.extend(bytes(size - len(counts.is_lost)))
        for numbers in (counts.kept, counts.learned):
            numbers.extend([0] * (size - len(numbers)))


def _unfit(result: Survey) -> list[Finding]:
    unit = result.readings[0].source.unit
    found = []
    for repair, sample in result.repairs.values():
        lines = lines_text(sample.count, unit)
        found.append(
            Finding(
                repair.name,
                Severity.NECESSARY,
                f"{lines} {'is' if sample.count == 1 else 'are'} not as the service takes"
                f" {'it' if sample.count == 1 else 'them'}, and can be mended.",
                sample.count,
                result(sample),
                repair.question.format(lines=lines),
            )
        )
    for fault, sample in result.faults.items():
        what = REMOVED[fault].format(lines=lines_text(sample.count, unit))
        found.append(
            Finding(
                str(fault),
                Severity.NECESSARY,
                f"{what[0].upper()}{what[1:]}.",
                sample.count,
                result(sample),
                f"Remove {what}",
            )
        )
    return found


def _of_numbers(result: Survey) -> list[Finding]:
    count = result.count(validation=False)
    found = []
    if count < MIN_EXAMPLES:
        found.append(
            Finding(
                "too_few_examples",
                Severity.NECESSARY,
                f"There {'is' if count == 1 else 'are'} {lines_text(count, 'example')} to train on;"
                f" at least {MIN_EXAMPLES} are needed.",
                count,
            )
        )
    elif count < FEW_EXAMPLES:
        found.append(
            Finding(
                "few_examples",
                Severity.NOTICE,
                f"There are {count} examples; a few hundred teach better.",
                count,
            )
        )
    if result.extra_columns:
        names = listed(result.extra_columns)
        found.append(
            Finding(
                "extra_columns",
                Severity.NOTICE,
                f"Left out: {lines_text(len(result.extra_columns), 'column')} ({names}).",
                len(result.extra_columns),
            )
        )
    return found


def _of_content(result: Survey) -> list[Finding]:
    found = [*result.equal.findings(result), *result.near.findings(result)]
    if result.counts is not None:
        found += result.counts.findings(result)
    for observer in result.content:
        found += observer.findings(result)
    return found
