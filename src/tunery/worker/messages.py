"""What the worker and its child processes say to each other: one JSON object a line."""

from typing import Any

import orjson
from pydantic import TypeAdapter

from tunery.domain.jobs import EpochCheckpoint, Snapshot, StepMetrics
from tunery.domain.ports.training import (
    ProofRequest,
    RunFailed,
    RunFinished,
    RunStarted,
    TrainingReport,
    TrainingRun,
)

_REPORTS: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind)
    for kind in (RunStarted, StepMetrics, EpochCheckpoint, Snapshot, RunFinished, RunFailed)
}
RUN = TypeAdapter(TrainingRun)
PROOF = TypeAdapter(ProofRequest)
SCORES = TypeAdapter(list[list[list[float]]])


def encode_report(report: TrainingReport) -> bytes:
    """Return a report as a line."""
    return orjson.dumps({"kind": type(report).__name__, "value": report}) + b"\n"


def decode_report(line: bytes) -> TrainingReport:
    """Return the report of a line."""
    message = orjson.loads(line)
    report: TrainingReport = _REPORTS[message["kind"]].validate_python(message["value"])
    return report
