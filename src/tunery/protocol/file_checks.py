"""The check of a training file's content on the wire: an extension of ours."""

from typing import Any, Literal

from pydantic import Field

from tunery.protocol.base import Request, Response


class CheckFileRequest(Request):
    """What to check a file with.

    Tokens are counted for `model`, where one is named; leaks are sought in `validation_file`.
    """

    model: str | None = Field(default=None, min_length=1)
    validation_file: str | None = Field(default=None, min_length=1)


class CheckedFile(Response):
    """A file that was read: `fit` of its `lines` can be trained on."""

    id: str
    role: Literal["training", "validation"]
    bytes: int
    lines: int
    fit: int


class CheckPlace(Response):
    """A line that something was found on, and what."""

    file: Literal["training", "validation"]
    line: int
    detail: str


class CheckFinding(Response):
    """One kind of thing that was found; `places` are the first of `count`."""

    kind: str
    severity: Literal["necessary", "recommended", "notice"]
    message: str
    count: int
    places: list[CheckPlace]
    fix: str | None
    data: dict[str, Any]


class CheckDistribution(Response):
    """How a number is spread over the lines; `bars` are [from, to, lines]."""

    name: str
    least: int
    low: int
    median: int
    high: int
    most: int
    mean: float
    total: int
    bars: list[tuple[int, int, int]]


class CheckSide(Response):
    """What would be trained on, or validated with: tokens are null where not counted."""

    role: Literal["train", "valid"]
    examples: int
    tokens: int | None
    learned_tokens: int | None


class CheckEstimate(Response):
    """What training with automatic hyperparameters would cost."""

    model: str
    method: str
    epochs: int
    batch_size: int
    steps: int
    billed_tokens: int
    price_usd: str


class FileCheck(Response):
    """The report on a training file."""

    object: Literal["file.check"] = "file.check"
    files: list[CheckedFile]
    line_format: str
    task: str
    labels: dict[str, int]
    languages: dict[str, int]
    findings: list[CheckFinding]
    distributions: list[CheckDistribution]
    sides: list[CheckSide]
    model: str | None
    max_tokens: int | None
    estimate: CheckEstimate | None
