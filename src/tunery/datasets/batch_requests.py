"""The lines of a batch's input file: what each must be, and the questions that they ask.

Whether a body can be answered is not looked at here: that is the endpoint's to say, of its line.
"""

import hashlib
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tunery.datasets.reader import BadLine, Line, lines, parse
from tunery.domain.batches import MAX_LINES, MAX_LISTED_PROBLEMS, BatchProblem

_KEYS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class BatchCheck:
    """What reading an input file found: `problems` is capped."""

    total: int
    model: str | None
    problems: tuple[BatchProblem, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One line that is to be answered."""

    line: int
    custom_id: str
    body: dict[str, Any]


def questions(chunks: Iterable[bytes], answered: Container[int] = ()) -> Iterator[Question]:
    """Yield the questions of a checked file, but for the lines that are answered."""
    for line in lines(chunks):
        if line.number not in answered:
            value = parse(line)
            yield Question(line.number, value["custom_id"], value["body"])


def check_batch_file(chunks: Iterable[bytes], endpoint: str) -> BatchCheck:
    """Read an input file; name its bad lines, up to a cap. Memory grows with digests of ids only.

    A file of too many lines is not read further than it has to be.
    """
    seen: dict[bytes, int] = {}
    model: str | None = None
    problems: list[BatchProblem] = []
    total = 0
    for line in lines(chunks):
        total += 1
        if total > MAX_LINES:
            many = f"The file has more than {MAX_LINES} requests; split it into several batches."
            return BatchCheck(total, model, (BatchProblem("too_many_tasks", many, line.number),))
        value, problem = _parsed(line)
        problem = problem or _problem(value, endpoint, line.number)
        problem = problem or _repeated(value, seen, line.number)
        if problem is None:
            model = model or value["body"]["model"]
            problem = _other_model(value, model, line.number)
        if problem is not None and len(problems) < MAX_LISTED_PROBLEMS:
            problems.append(problem)
    if not total:
        problems.append(BatchProblem("empty_file", "The file has no requests in it."))
    return BatchCheck(total, model, tuple(problems))


def _parsed(line: Line) -> tuple[dict[str, Any], BatchProblem | None]:
    try:
        return parse(line), None
    except BadLine as error:
        message = f"This line is no request that can be read: {error}."
        return {}, BatchProblem("invalid_json_line", message, line.number)


def _problem(value: dict[str, Any], endpoint: str, number: int) -> BatchProblem | None:
    """Return what is wrong with a line by itself, or None."""
    for key in value:
        if key not in _KEYS:
            message = f"Unknown parameter: '{key[:80]}'. A request has {', '.join(_KEYS)}."
            return BatchProblem("unknown_parameter", message, number, key[:80])
    for key in _KEYS:
        if value.get(key) is None:
            return _missing(key, number)
    custom_id, body = value["custom_id"], value["body"]
    if not isinstance(custom_id, str) or not custom_id:
        message = "Invalid value for 'custom_id': it needs to be a text that is not empty."
        return BatchProblem("invalid_value", message, number, "custom_id")
    if value["method"] != "POST":
        message = f"Invalid method {_short(value['method'])}: only 'POST' is supported."
        return BatchProblem("invalid_method", message, number, "method")
    if value["url"] != endpoint:
        message = f"Invalid url {_short(value['url'])}: this batch was created for '{endpoint}'."
        return BatchProblem("invalid_url", message, number, "url")
    if not isinstance(body, dict):
        message = "Invalid value for 'body': it needs to be a JSON object."
        return BatchProblem("invalid_value", message, number, "body")
    if body.get("model") is None:
        return _missing("body.model", number)
    if not isinstance(body["model"], str) or not body["model"]:
        message = "Invalid value for 'body.model': it needs to be a model's name."
        return BatchProblem("invalid_value", message, number, "body.model")
    return None


def _repeated(value: dict[str, Any], seen: dict[bytes, int], number: int) -> BatchProblem | None:
    custom_id = value["custom_id"]
    first = seen.setdefault(hashlib.sha256(custom_id.encode()).digest(), number)
    if first == number:
        return None
    message = f"The custom_id {_short(custom_id)} is that of line {first} already."
    return BatchProblem("duplicate_custom_id", message, number, "custom_id")


def _other_model(value: dict[str, Any], model: str, number: int) -> BatchProblem | None:
    name = value["body"]["model"]
    if name == model:
        return None
    message = (
        f"All requests of a batch need the same model: the first one names {_short(model)}, this"
        f" one {_short(name)}."
    )
    return BatchProblem("mismatched_model", message, number, "body.model")


def _missing(name: str, number: int) -> BatchProblem:
    return BatchProblem(
        "missing_required_parameter", f"Missing required parameter: '{name}'.", number, name
    )


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
