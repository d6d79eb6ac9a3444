"""What one task tells of its job to Weights & Biases: each step, and where the job stands after it.

Nothing here fails a task: what goes wrong becomes one warning in the job's story.
"""

import threading

from tunery.domain.errors import TuneryError
from tunery.domain.jobs import TERMINAL, Job, StepMetrics
from tunery.domain.ports.tracking import Reporter, Reports, TrackedEnd
from tunery.domain.tasks import Task
from tunery.services.tracking import tracked_end, tracked_run, warn
from tunery.storage.database import Database
from tunery.telemetry import Logger

_UNKNOWN = TrackedEnd("unknown", None, None)  # the database did not say
DISABLED = "the operator of this server has switched it off"


class Tracking:
    """Reports jobs that want it; a job is warned of a failure once, whatever becomes of it."""

    def __init__(self, database: Database, reporter: Reporter | None, log: Logger) -> None:
        """Without a reporter, jobs that want one are warned."""
        self._database = database
        self._reporter = reporter
        self._log = log
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def of(self, task: Task) -> "TaskTracking":
        """Return the tracking of a task's job."""
        return TaskTracking(self, task)

    def close(self) -> None:
        """End every report that is still under way."""
        if self._reporter is not None:
            self._reporter.close()

    def job(self, task: Task) -> Job | None:
        """Return the task's job if it wants to be reported."""
        try:
            with self._database.read() as tx:
                job = tx.jobs(task.tenant).get(task.subject)
        except TuneryError as error:
            self._log.warning("not reported", subject=task.subject, error=error.message)
            return None
        return job if job is not None and job.integrations else None

    def start(self, task: Task, job: Job) -> Reports | None:
        """Begin to report a job, if that can be."""
        if self._reporter is None:
            self.warn(task, DISABLED)
            return None
        return self._reporter.start(tracked_run(job), lambda problem: self.warn(task, problem))

    def warn(self, task: Task, problem: str) -> None:
        """Write a warning into the job's story, unless there is one."""
        with self._lock:
            if task.subject in self._warned:
                return
            self._warned.add(task.subject)
        self._log.warning("not reported", subject=task.subject, problem=problem)
        try:
            warn(self._database, task.tenant, task.subject, problem)
        except TuneryError as error:
            self._log.warning("no warning left", subject=task.subject, error=error.message)


class TaskTracking:
    """The reports of one task."""

    def __init__(self, tracking: Tracking, task: Task) -> None:
        self._tracking = tracking
        self._task = task
        self._reports: Reports | None = None

    def begin(self) -> None:
        """Training begins, or goes on."""
        job = self._tracking.job(self._task)
        if job is not None:
            self._reports = self._tracking.start(self._task, job)

    def step(self, metrics: StepMetrics) -> None:
        """Report a step."""
        if self._reports is not None:
            self._reports.step(metrics)

    def end(self) -> None:
        """Report where the job stands, if this task trained it or it has come to its end."""
        job = self._tracking.job(self._task)
        ended = job is not None and job.status in TERMINAL and job.started_at is not None
        if self._reports is None and job is not None and ended:
            self._reports = self._tracking.start(self._task, job)
        if self._reports is not None:
            self._reports.close(_UNKNOWN if job is None else tracked_end(job))
