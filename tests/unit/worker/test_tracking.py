"""What a task tells of its job: its steps, where it stands after them, and one warning at most."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.rows import OURS, a_job, some_metrics
from tunery.domain.jobs import (
    Hyperparameters,
    JobStatus,
    StepMetrics,
    TrainingMethod,
    WandbIntegration,
)
from tunery.domain.ports.tracking import TrackedEnd, TrackedRun
from tunery.domain.tasks import Task, TaskKind
from tunery.services import jobs
from tunery.services.tracking import tracked_run
from tunery.storage.database import Database
from tunery.telemetry import logger
from tunery.worker.tracking import Tracking

WANTED = (WandbIntegration("p", tags=("x",)), WandbIntegration("q"))
TASK = Task(1, TaskKind.TRAIN_JOB, "ftjob-1", OURS, 1)


@dataclass
class Noted:
    """Notes what is reported."""

    run: TrackedRun
    warn: Callable[[str], None]
    told: list[StepMetrics | TrackedEnd] = field(default_factory=list)

    def step(self, metrics: StepMetrics) -> None:
        self.told.append(metrics)

    def close(self, end: TrackedEnd) -> None:
        self.told.append(end)


class NotingReporter:
    """Makes notes in place of reports."""

    def __init__(self) -> None:
        self.started: list[Noted] = []
        self.closed = False

    def start(self, run: TrackedRun, warn: Callable[[str], None]) -> Noted:
        self.started.append(Noted(run, warn))
        return self.started[-1]

    def close(self) -> None:
        self.closed = True


def add(database: Database, status: JobStatus = JobStatus.RUNNING, **changes: Any) -> None:
    with database.write() as tx:
        values: dict[str, Any] = {"started_at": 5, "integrations": WANTED, "seed": 7, **changes}
        tx.jobs(OURS).add(a_job(status=status, resolved=Hyperparameters(3, 2, 0.5), **values))


def story(database: Database) -> list[tuple[str, str]]:
    events = jobs.list_events(database, OURS, "ftjob-1", after=None, limit=9).items
    return [(event.level, event.message) for event in events]


def test_a_job_is_told_from_its_start_to_where_it_stands(database: Database) -> None:
    add(database, trained_tokens=9)
    reporter = NotingReporter()
    tracking = Tracking(database, reporter, logger())
    task = tracking.of(TASK)
    task.begin()
    task.step(some_metrics(1))
    task.end()
    (noted,) = reporter.started
    assert noted.run == TrackedRun(
        job_id="ftjob-1",
        run_ids=("ftjob-1", "ftjob-1-2"),
        integrations=WANTED,
        tags=("openai/finetune", "openai/tiny", "openai/ftjob-1"),
        config={
            "job_id": "ftjob-1",
            "model": "tiny",
            "base": "tiny",
            "training_file": "file-1",
            "validation_file": None,
            "suffix": None,
            "seed": 7,
            "method": "supervised",
            "n_epochs": 3,
            "batch_size": 2,
            "learning_rate_multiplier": 0.5,
        },
    )
    assert noted.told == [some_metrics(1), TrackedEnd("running", None, 9)]
    tracking.close()
    assert reporter.closed


def test_a_job_that_learns_preferences_is_told_with_its_beta() -> None:
    job = a_job(
        method=TrainingMethod.DPO, resolved=Hyperparameters(3, 2, 0.5, 0.1), integrations=WANTED
    )
    config = tracked_run(job).config
    numbers = {name: config[name] for name in ("method", "beta", "learning_rate_multiplier")}
    assert numbers == {"method": "dpo", "beta": 0.1, "learning_rate_multiplier": 0.5}


@pytest.mark.parametrize(
    ("status", "started_at", "told"),
    [
        (JobStatus.SUCCEEDED, 5, [TrackedEnd("succeeded", "ft:x", None)]),
        (JobStatus.FAILED, 5, [TrackedEnd("failed", "ft:x", None)]),
        (JobStatus.FAILED, None, None),  # it never began: there is no run to be ended
        (JobStatus.RUNNING, 5, None),
        (JobStatus.PAUSED, 5, None),
    ],
)
def test_a_task_that_trained_nothing_tells_only_of_an_end(
    database: Database,
    status: JobStatus,
    started_at: int | None,
    told: list[TrackedEnd] | None,
) -> None:
    add(database, status, started_at=started_at, fine_tuned_model="ft:x")
    reporter = NotingReporter()
    Tracking(database, reporter, logger()).of(TASK).end()
    assert [noted.told for noted in reporter.started] == ([] if told is None else [told])


def test_a_job_that_wants_no_reports_gets_none(database: Database) -> None:
    add(database, integrations=())
    reporter = NotingReporter()
    task = Tracking(database, reporter, logger()).of(TASK)
    task.begin()
    task.step(some_metrics(1))
    task.end()
    assert reporter.started == []


def test_what_goes_wrong_is_told_once_and_the_job_stays_as_it_is(database: Database) -> None:
    add(database)
    reporter = NotingReporter()
    tracking = Tracking(database, reporter, logger())
    for problem in ("one thing", "another"):
        task = tracking.of(TASK)
        task.begin()
        reporter.started[-1].warn(problem)
        task.end()
    message = "Metrics are not reported to Weights & Biases: one thing. Training is not affected."
    assert story(database) == [("warn", message)]
    assert jobs.get_job(database, OURS, "ftjob-1").status is JobStatus.RUNNING


def test_a_job_of_before_reports_were_switched_off_is_warned(database: Database) -> None:
    add(database)
    task = Tracking(database, None, logger()).of(TASK)
    task.begin()
    task.step(some_metrics(1))
    task.end()
    ((level, message),) = story(database)
    assert level == "warn"
    assert "the operator of this server has switched it off" in message
