"""What the worker and its child processes say to each other: one JSON object a line."""

from typing import Any

import orjson
from pydantic import TypeAdapter

from tunery.domain.jobs import EpochCheckpoint, Snapshot, StepMetrics
from tunery.domain.ports.tracking import TrackedEnd, TrackedRun
from tunery.domain.ports.training import (
    ProofRequest,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPaused,
    RunStarted,
    TrainingReport,
    TrainingRun,
)

_REPORTS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (
        RunStarted,
        StepMetrics,
        EpochCheckpoint,
        Snapshot,
        RunFinished,
        RunPaused,
        RunInterrupted,
        RunFailed,
    )
}
PAUSE = b"pause"  # the line that asks a training process for a snapshot and its end
RUN = TypeAdapter(TrainingRun)
PROOF = TypeAdapter(ProofRequest)
SCORES = TypeAdapter(list[list[list[float]]])
TRACKED = TypeAdapter(TrackedRun)
_TRACKED: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (StepMetrics, TrackedEnd)
}


def encode_report(report: TrainingReport) -> bytes:
    """Return a report as a line."""
    return orjson.dumps({"kind": type(report).__name__, "value": report}) + b"\n"


def decode_report(line: bytes) -> TrainingReport:
    """Return the report of a line."""
    message = orjson.loads(line)
    report: TrainingReport = _REPORTS[message["kind"]].validate_python(message["value"])
    return report


def encode_tracked(report: StepMetrics | TrackedEnd) -> bytes:
    """Return as a line what is reported of a run."""
    return orjson.dumps({"kind": type(report).__name__, "value": report}) + b"\n"


def decode_tracked(line: bytes) -> StepMetrics | TrackedEnd:
    """Return what is reported of a run in a line."""
    message = orjson.loads(line)
    report: StepMetrics | TrackedEnd = _TRACKED[message["kind"]].validate_python(message["value"])
    return report


def encode_problem(problem: str) -> bytes:
    """Return as a line why a run is not reported."""
    return orjson.dumps({"problem": problem}) + b"\n"


def decode_problem(line: bytes) -> str:
    """Return why a run is not reported."""
    return str(orjson.loads(line)["problem"])
