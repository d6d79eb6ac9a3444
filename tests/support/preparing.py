"""Files to prepare, made by seeded code, and preparing them without a terminal."""

import csv
import io
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunery.datasets.checks import check_file
from tunery.datasets.preparing.shapes import plan_for
from tunery.datasets.preparing.sources import open_source
from tunery.datasets.preparing.survey import Reading, Survey, survey
from tunery.datasets.preparing.token_counts import TokenCounts
from tunery.datasets.preparing.writing import Choices, Decision, decide, write
from tunery.domain.files import FileReport

_WORDS = tuple(
    "order parcel refund invoice account password delivery shop return label size colour tent"  # noqa: SIM905
    " stove lamp filter boots jacket backpack chair mug messenger damage claim photo number".split()
)


def sentence(draw: random.Random, words: int) -> str:
    """Return words in a random order."""
    return " ".join(draw.choice(_WORDS) for _ in range(words))


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Return questions and answers, no two alike."""
    draw = random.Random(f"rows/{seed}")
    return [
        {"question": f"{n}: {sentence(draw, 9)}?", "answer": f"{sentence(draw, 12)}, {n}."}
        for n in range(count)
    ]


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """Return a chat line."""
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": messages, **more}


def chats(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return chat lines, no two alike."""
    return [chat(row["question"], row["answer"]) for row in rows(count, seed)]


def json_lines(values: Iterable[Any]) -> bytes:
    """Return values as JSON Lines."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def table(values: Sequence[Mapping[str, str]], delimiter: str = ",") -> bytes:
    """Return rows as CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(values[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(values)
    return text.getvalue().encode()


def xlsx(path: Path, values: Sequence[Sequence[Any]]) -> Path:
    """Write rows, the header among them, as a workbook."""
    import openpyxl

    book = openpyxl.Workbook()
    for row in values:
        book.active.append(list(row))
    book.save(path)
    return path


def parquet(path: Path, values: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as Parquet."""
    import pyarrow
    from pyarrow import parquet as files

    files.write_table(pyarrow.Table.from_pylist(list(values)), path)
    return path


def read(path: Path) -> list[tuple[int, Any, str | None]]:
    """Return what a source says: number, value and problem of each item."""
    source = open_source(path)
    return [(one.number, one.value, one.problem) for one in source.read(lambda done: None)]


def reading(path: Path, **options: Any) -> Reading:
    """Return a file as it is read with no column named."""
    source = open_source(path)
    return Reading(path.name, source, plan_for(source, {}, **options))


def surveyed(
    training: Path,
    validation: Path | None = None,
    counts: TokenCounts | None = None,
    seed: int = 0,
    **options: Any,
) -> Survey:
    """Return what is found in a file."""
    other = None if validation is None else reading(validation, **options)
    return survey(reading(training, **options), other, counts=counts, seed=seed)


def every_fix(found: Survey) -> set[str]:
    """Return all that can be mended."""
    return {one.kind for one in found.findings if one.fix is not None}


def prepared(
    found: Survey, folder: Path, share: float = 0.0, accepted: set[str] | None = None
) -> tuple[Decision, list[dict[str, Any]], list[dict[str, Any]]]:
    """Write a survey's files and return them, line by line: to train on, and to validate with."""
    decision = decide(found, Choices(every_fix(found) if accepted is None else accepted, share))
    paths = {side: folder / f"{side}.jsonl" for side in ("train", "valid")}
    write(found, decision, paths)
    sides = [lines_in(path) if path.exists() else [] for path in paths.values()]
    return decision, sides[0], sides[1]


def lines_in(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSONL file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def upload_report(path: Path) -> FileReport:
    """Return what the service's own check says of a file that is uploaded."""
    return check_file(iter([path.read_bytes()]))


def kinds(found: Survey) -> dict[str, int]:
    """Return what was found, and how often."""
    return {one.kind: one.count for one in found.findings}
