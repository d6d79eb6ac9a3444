"""Which service carries out which task, and what becomes of a task that cannot be carried out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tunery.domain.batches import BatchProblem
from tunery.domain.errors import Overloaded, StorageFull, TuneryError, Unavailable
from tunery.domain.jobs import TERMINAL, Adapter, JobError, StepMetrics
from tunery.domain.models import BaseModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.engine import Engine
from tunery.domain.ports.training import Executor, RunHandle, RunInterrupted
from tunery.domain.tasks import MAX_FAILURES, LeaseLost, Task, TaskKind
from tunery.services import publishing, training, validation
from tunery.services.jobs import find_job
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database
from tunery.telemetry import Logger
from tunery.training.cache_folder import CacheFolder
from tunery.worker import batches
from tunery.worker.executor import ChildDied
from tunery.worker.lease import Lease, Stopping
from tunery.worker.portal import Portal
from tunery.worker.tracking import TaskTracking, Tracking

_JOB_TASKS = (
    TaskKind.PREPARE_JOB,
    TaskKind.TRAIN_JOB,
    TaskKind.PUBLISH_JOB,
    TaskKind.KEEP_CHECKPOINTS,
)
_OWNED_TASKS = (*_JOB_TASKS, *batches.TASKS)
_RETRY_S = 2.0
_BUSY_S = 5.0
_SCORE_TRIES = 30
_LATER_S = 60.0  # for what must not be given up
_REPORT_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Stages:
    """Carries out tasks with the parts it is given."""

    database: Database
    blobs: BlobStore
    caches: CacheFolder
    directory: ModelDirectory
    renderers: validation.Renderers
    engine: Engine
    executor: Executor
    portal: Portal
    tolerance: publishing.Tolerance
    tracking: Tracking
    batches: batches.BatchWork
    log: Logger

    def run(self, task: Task, lease: Lease) -> None:
        """Carry out a claimed task; a failure is dealt with here."""
        log = self.log.bind(task=task.kind, subject=task.subject, fence=task.fence)
        tracking = self.tracking.of(task)
        try:
            if task.kind in _OWNED_TASKS and self._is_over(task):
                log.warning("task given up: its job has ended, or it broke too many workers")
            else:
                self._carry_out(task, lease, tracking)
        except LeaseLost:
            log.warning("task given up: cancelled, or another worker has it")
        except Stopping:
            log.info("task given back: the worker stops")
            self._put_back(task, 0.0)
        except validation.NotYet:
            self._put_back(task, 0.2)
        except Overloaded as error:  # no fault of the task's, however often
            log.info("task waits", reason=error.message)
            self._put_back(task, _BUSY_S)
        except (Unavailable, StorageFull, ChildDied) as error:
            log.warning("task interrupted", error=str(error))
            self._retry(task, str(error))
        except TuneryError as error:
            log.error("task failed", error=error.message)
            self._abandon(task, JobError(error.code or "server_error", error.message, error.param))
        except Exception:
            log.exception("task failed by a bug")
            self._abandon(
                task, JobError("server_error", "The service failed; its log says more.", None)
            )
        else:
            log.info("task done")
        if task.kind in _JOB_TASKS:
            self._tidy(task, tracking)

    def _tidy(self, task: Task, tracking: TaskTracking) -> None:
        """Report the end of a job that has ended, and remove what it leaves behind."""
        if task.kind is not TaskKind.KEEP_CHECKPOINTS:  # its job's end was told before
            tracking.end()
        if training.clean_up(self.database, self.blobs, task.tenant, task.subject):
            self.caches.remove(training.job_prefix(task.tenant, task.subject))

    def close(self) -> None:
        """Bring to an end what the tasks left to go on by itself."""
        self.tracking.close()
        self.portal.call(self.engine.close)

    def _is_over(self, task: Task) -> bool:
        """Whether the job has ended or broke too many workers: its task is removed then."""
        if task.kind in _JOB_TASKS:
            with self.database.read() as tx:
                job = tx.jobs(task.tenant).get(task.subject)
            ended, what = job is None or job.status in TERMINAL, "job"
            ended = ended and task.kind is not TaskKind.KEEP_CHECKPOINTS
        elif task.kind is TaskKind.END_BATCH:
            return False  # its answers are made and charged: they are written, however late
        else:
            ended, what = False, "batch"
        if not ended and task.failures < MAX_FAILURES:
            return False
        message = f"The {what} broke its worker {task.failures} times."
        self._abandon(task, JobError("server_error", message, None))
        return True

    def _carry_out(self, task: Task, lease: Lease, tracking: TaskTracking) -> None:
        match task.kind:
            case TaskKind.CHECK_FILE:
                validation.check_uploaded_file(self.database, self.blobs, task)
            case TaskKind.PREPARE_JOB:
                validation.prepare_job(
                    self.database, self.blobs, self._base(task), self.renderers, task
                )
            case TaskKind.TRAIN_JOB:
                self._train(task, lease, tracking)
            case TaskKind.CHECK_BATCH | TaskKind.RUN_BATCH | TaskKind.END_BATCH:
                self.batches.carry_out(task, lease)
            case TaskKind.PUBLISH_JOB | TaskKind.KEEP_CHECKPOINTS:
                self._publish(task, lease)

    def _publish(self, task: Task, lease: Lease) -> None:
        base = self._base(task)
        proof = (
            self.renderers(base),
            lambda ids, digest, adapter: self._score(lease, ids, digest, adapter),
            self.executor.reference,
            self.tolerance,
            task,
        )
        if task.kind is TaskKind.PUBLISH_JOB:
            publishing.publish_job(self.database, self.blobs, base, *proof)
        else:
            publishing.publish_kept(self.database, self.blobs, *proof)

    def _base(self, task: Task) -> BaseModel:
        """Return the base of the task's job; raise TuneryError where it is not what it was."""
        with self.database.read() as tx:
            job = find_job(tx, task.tenant, task.subject)
        return self.directory.pinned(job.base, job.base_digest)

    def _train(self, task: Task, lease: Lease, tracking: TaskTracking) -> None:
        run = training.begin_run(self.database, task)
        if run is None:
            return
        tracking.begin()
        handle = self.executor.start(run)
        try:
            while not handle.finished:
                self._heed(lease, handle)
                for report in handle.reports(_REPORT_WAIT_S):
                    if isinstance(report, RunInterrupted):
                        raise Unavailable(report.message)
                    goes_on = training.record(self.database, self.blobs, task, report)
                    if isinstance(report, StepMetrics):
                        tracking.step(report)
                    if not goes_on:
                        return
                    self._heed(lease, handle)
        finally:
            handle.stop()

    @staticmethod
    def _heed(lease: Lease, handle: RunHandle) -> None:
        """Do as the lease says: go on, come to a stop with nothing lost, or end at once."""
        lease.check()
        if lease.is_to_yield:
            handle.pause()

    def _score(
        self, lease: Lease, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter
    ) -> publishing.Scores:
        """Score, waiting while every place is in use: the reference's work is not done again."""
        for _ in range(_SCORE_TRIES - 1):
            lease.check()
            try:
                return self.portal.call(lambda: self.engine.score(token_ids, base_digest, adapter))
            except Overloaded as error:
                time.sleep(error.retry_after_s)
        return self.portal.call(lambda: self.engine.score(token_ids, base_digest, adapter))

    def _retry(self, task: Task, why: str) -> None:
        """Give the task back for another try, each time later, or give up after many."""
        failures = self._failures(task) + 1
        if failures >= MAX_FAILURES:
            message = f"It failed {failures} times; the last time: {why}"
            self._abandon(task, JobError("server_error", message, None))
        else:
            delay_s = min(_LATER_S, _RETRY_S * 2 ** (failures - 1))
            self._put_back(task, delay_s, failed=True)

    def _failures(self, task: Task) -> int:
        """Return how often a task has failed without getting on, of which it may have forgotten."""
        try:
            with self.database.read() as tx:
                return tx.queue.failures(task)
        except TuneryError:
            return task.failures

    def _put_back(self, task: Task, delay_s: float, *, failed: bool = False) -> None:
        try:
            with self.database.write() as tx:
                tx.queue.put_back(task, delay_s, failed=failed)
        except TuneryError as error:  # its lease will run out instead
            self.log.warning("task not put back", subject=task.subject, error=error.message)

    def _abandon(self, task: Task, error: JobError) -> None:
        try:
            if task.kind in _JOB_TASKS:
                training.abandon(self.database, task, error)
            elif task.kind is TaskKind.END_BATCH:
                self._put_back(task, _LATER_S)
            elif task.kind in batches.TASKS:
                problem = BatchProblem(error.code, error.message, None, error.param)
                self.batches.give_up(task, problem)
            elif task.failures + 1 >= MAX_FAILURES:
                validation.give_up_check(self.database, task)
            else:
                self._put_back(task, _RETRY_S, failed=True)
        except LeaseLost:
            self.log.warning("task given up", subject=task.subject)
        except TuneryError as unable:
            self.log.warning("task not abandoned", subject=task.subject, error=unable.message)
