"""The second reading of a file: its fit lines, mended and in order, into files for training.

What is written passes the upload's own check. A file appears whole or not at all.
"""

import os
import secrets
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import orjson

from tunery.datasets.checks import LineChecker
from tunery.datasets.completion_pairs import COMPLETION, PROMPT, is_pair
from tunery.datasets.preparing.affixes import SEPARATOR, Affixes
from tunery.datasets.preparing.items import Item, Unreadable
from tunery.datasets.preparing.repairs import Line
from tunery.datasets.preparing.split import draw
from tunery.datasets.preparing.survey import Survey, Told, fit_line, lines_of
from tunery.domain.errors import StorageFull

_FIT = 1  # a line that needs no repair


@dataclass(frozen=True, slots=True)
class Choices:
    """What was decided: the kinds of findings to mend, and how much is split off to validate."""

    accepted: Set[str]
    validation_share: float = 0.0


@dataclass(slots=True)
class Outcome:
    """What a file has got, or would get: tokens are before the first epoch, 0 where not counted."""

    examples: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    path: Path | None = None


@dataclass(slots=True)
class Decision:
    """Which lines are kept, and which of them validate: a byte for each index."""

    kept: bytearray
    validates: bytearray
    edits: "Edits"
    outcomes: dict[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes to each line's text that were agreed to."""

    strip: bool = False
    separator: str = ""
    prefix: str = ""
    space: bool = False

    def of(self, line: Line) -> Line:
        """Return a line with the changes, or the very same object where there are none."""
        if is_pair(line):
            return self._pair(line)
        if not self.strip or "messages" not in line:
            return line
        last = line["messages"][-1]
        text = last.get("content")
        if not isinstance(text, str) or text == text.strip():
            return line
        return {**line, "messages": [*line["messages"][:-1], {**last, "content": text.strip()}]}

    def _pair(self, line: Line) -> Line:
        prompt, completion = line[PROMPT], line[COMPLETION]
        if self.separator and prompt and not prompt.endswith(self.separator):
            prompt += self.separator
        if self.prefix:
            start = len(completion) - len(completion.lstrip())
            rest = completion[start:].removeprefix(self.prefix)
            completion = completion[:start] + rest if rest.strip() else completion
        if self.space and not completion[:1].isspace():
            completion = f" {completion}"
        same = prompt == line[PROMPT] and completion == line[COMPLETION]
        return line if same else {PROMPT: prompt, COMPLETION: completion}


def decide(result: Survey, choices: Choices) -> Decision:
    """Return which lines go where, and count them."""
    accepted = choices.accepted
    kept = bytearray(map(bool, result.states))
    if "duplicate_lines" in accepted:
        _drop(kept, result.equal.is_copy)
    if "nothing_learned" in accepted and result.counts is not None:
        _drop(kept, result.counts.is_lost)
    if "leaked_lines" in accepted:
        for index in result.equal.leaked():
            kept[index] = 0
    size, start = len(kept), result.validation_from
    validates = bytearray(size)
    if start is not None:
        validates[start:] = b"\x01" * (size - start)
    elif choices.validation_share > 0:
        equal = result.equal
        validates = draw(
            equal.group, equal.question_hashes, kept, choices.validation_share, result.seed
        )
    affixes: Affixes = result.observer(Affixes)
    edits = Edits(
        strip="space_around_answers" in accepted,
        separator=SEPARATOR if "prompt_separator" in accepted else "",
        prefix=affixes.completion_prefix() if "common_completion_start" in accepted else "",
        space="completion_space" in accepted,
    )
    decision = Decision(kept, validates, edits)
    decision.outcomes = {"train": Outcome(), "valid": Outcome()}
    counts = result.counts
    for index in range(size):
        if kept[index]:
            outcome = decision.outcomes["valid" if validates[index] else "train"]
            outcome.examples += 1
            if counts is not None:
                outcome.tokens += counts.kept[index]
                outcome.learned_tokens += counts.learned[index]
    return decision


def write(
    result: Survey,
    decision: Decision,
    paths: dict[str, Path],
    told: Told = lambda name, done, size: None,
) -> None:
    """Write the files; a side without a path or without a line is not written."""
    wanted = {side: path for side, path in paths.items() if decision.outcomes[side].examples}
    with _all_written(list(wanted.values())) as files:
        handles = dict(zip(wanted, files, strict=True))
        index = 0
        checker = LineChecker(result.expected)
        for reading in result.readings:
            size = reading.source.size_bytes

            def progress(done: int, name: str = reading.name, size: int = size) -> None:
                told(name, done, size)

            for item, line, _ in lines_of(reading, progress):
                if index == len(decision.kept):
                    raise _changed(reading.name)
                if decision.kept[index] and line is not None:
                    side = "valid" if decision.validates[index] else "train"
                    text, recount = _text(result, decision.edits, checker, index, item, line)
                    handles[side].write(text)
                    if recount is not None:
                        _count_again(result, decision.outcomes[side], index, recount)
                index += 1
        if index < len(decision.kept):
            raise _changed(result.readings[-1].name)
    for side, path in wanted.items():
        decision.outcomes[side].path = path


def _text(
    result: Survey, edits: Edits, checker: LineChecker, index: int, item: Item, line: Line
) -> tuple[bytes, Line | None]:
    """Return a line's JSON text, and the line where its tokens have changed."""
    fit: Line | None = line
    if result.states[index] != _FIT:
        fit, *_ = fit_line(checker, line)
    if fit is None:
        raise _changed("A file")
    edited = edits.of(fit)
    if edited is item.value and item.data is not None:
        return item.data.strip() + b"\n", None
    return orjson.dumps(edited) + b"\n", None if edited is fit else edited


def _count_again(result: Survey, outcome: Outcome, index: int, line: Line) -> None:
    counts = result.counts
    if counts is not None:
        kept, learned = counts.count(line)
        outcome.tokens += kept - counts.kept[index]
        outcome.learned_tokens += learned - counts.learned[index]


def _changed(name: str) -> Unreadable:
    return Unreadable(f"{name} has changed while it was read; run this again.")


def _drop(kept: bytearray, dropped: bytearray) -> None:
    for index, gone in enumerate(dropped):
        if gone:
            kept[index] = 0


@contextmanager
def _all_written(paths: list[Path]) -> Iterator[list[IO[bytes]]]:
    """Open files beside the paths, and move them there when all are whole and on disk."""
    mark = secrets.token_hex(6)
    temporary = [path.with_name(f".{path.name}.{mark}") for path in paths]
    files: list[IO[bytes]] = []
    try:
        for path in temporary:
            files.append(path.open("xb"))
        yield files
        for file in files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for source, path in zip(temporary, paths, strict=True):
            source.replace(path)
    except OSError as error:
        raise StorageFull(f"Cannot write beside {paths[0]}: {error.strerror}.") from None
    finally:
        for file in files:
            with suppress(OSError):
                file.close()
        for path in temporary:
            path.unlink(missing_ok=True)
