"""What a job's metrics are reported to beside its own story. A report that fails fails nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunery.domain.jobs import StepMetrics, WandbIntegration


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A job as it is reported: where to, as which runs, and what it trains with."""

    job_id: str
    run_ids: tuple[str, ...]
    integrations: tuple[WandbIntegration, ...]
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrackedEnd:
    """Where the job stands when no more of it is reported for now."""

    status: str
    fine_tuned_model: str | None
    trained_tokens: int | None


class Reports(Protocol):
    """The reports of one task; to make one never waits and never fails."""

    def step(self, metrics: StepMetrics) -> None:
        """Report a step."""

    def close(self, end: TrackedEnd) -> None:
        """Report no more; what was reported is brought to its end in the background."""


class Reporter(Protocol):
    """Reports outside the worker's own process."""

    def start(self, run: TrackedRun, warn: Callable[[str], None]) -> Reports:
        """Begin to report, or go on; `warn` hears of a failure, at any later time."""

    def close(self) -> None:
        """End every report that is still under way."""
