"""Jobs are paused and resumed; in any order with workers and cancellations, one state results."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from support.databases import opened
from support.racing import Waiting
from support.rows import OURS, THEIRS, a_file, a_job, an_epoch, some_metrics
from tunery.domain.errors import Conflict, InvalidRequest, NotFound
from tunery.domain.jobs import (
    TERMINAL,
    Hyperparameters,
    Job,
    JobError,
    JobEvent,
    JobStatus,
    Snapshot,
)
from tunery.domain.ports.training import (
    RunFailed,
    RunFinished,
    RunPaused,
    TrainingReport,
)
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.services import files, jobs, training
from tunery.services.pausing import pause_job, resume_job
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.tables import tasks

ALL = list(TaskKind)
TRAIN = [TaskKind.TRAIN_JOB]


def add_job(database: Database, kind: TaskKind | None = TaskKind.TRAIN_JOB, **changes: Any) -> None:
    values = {"status": JobStatus.QUEUED, "resolved": Hyperparameters(1, 1, 1.0), **changes}
    with database.write() as tx:
        tx.files(OURS).add(a_file())
        tx.jobs(OURS).add(a_job(**values))
        if kind is not None:
            tx.queue.add(OURS, kind, "ftjob-1")


def claim(database: Database, lease_s: float = 60) -> Task | None:
    with database.write() as tx:
        return tx.queue.claim(ALL, lease_s)


def claimed(database: Database) -> Task:
    task = claim(database)
    assert task is not None
    return task


def job_of(database: Database) -> Job:
    return jobs.get_job(database, OURS, "ftjob-1")


def story(database: Database) -> list[str]:
    events = jobs.list_events(database, OURS, "ftjob-1", after=None, limit=1000).items
    return [event.message for event in reversed(events)]


def states(database: Database) -> list[tuple[str, str]]:
    with database.read() as tx:
        rows = tx._connection.execute(tasks.select().order_by(tasks.c.id)).all()
    return [(row.kind, row.state) for row in rows]


def training_job(database: Database) -> Task:
    """Return the task of a job that has come to step 3, with a snapshot of step 2."""
    add_job(database)
    task = claimed(database)
    assert training.begin_run(database, task) is not None
    for report in (some_metrics(1), some_metrics(2), Snapshot(2, "p/s-2"), some_metrics(3)):
        tell(database, task, report)
    return task


def tell(database: Database, task: Task, report: TrainingReport) -> bool:
    return training.record(database, LocalBlobStore.__new__(LocalBlobStore), task, report)


@pytest.fixture(autouse=True)
def no_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let older snapshots be deleted nowhere: what is tested here are rows."""
    monkeypatch.setattr(LocalBlobStore, "delete", lambda self, key: None)


def test_a_queued_job_waits_until_it_is_resumed(database: Database) -> None:
    add_job(database)
    assert pause_job(database, OURS, "ftjob-1").status is JobStatus.PAUSED
    assert claim(database) is None
    assert resume_job(database, OURS, "ftjob-1").status is JobStatus.QUEUED
    run = training.begin_run(database, claimed(database))
    assert run is not None
    assert run.resume_from is None
    assert job_of(database).status is JobStatus.RUNNING
    told = ["The job was paused", "The job was resumed", "Fine-tuning job started"]
    assert story(database) == told


def test_a_paused_run_keeps_its_task_until_it_has_stopped_and_all_it_reports_counts(
    database: Database,
) -> None:
    task = training_job(database)
    started_at = job_of(database).started_at
    assert pause_job(database, OURS, "ftjob-1").status is JobStatus.PAUSED
    with database.write() as tx:
        assert not tx.queue.renew(task, 60)  # this is how its worker hears of it
    assert tell(database, task, some_metrics(4))
    assert tell(database, task, an_epoch(4))
    assert tell(database, task, Snapshot(4, "p/s-4"))
    assert not tell(database, task, RunPaused())
    with pytest.raises(LeaseLost):
        tell(database, task, some_metrics(5))
    assert claim(database) is None
    assert states(database) == [("train_job", "paused")]
    resume_job(database, OURS, "ftjob-1")
    again = claimed(database)
    run = training.begin_run(database, again)
    assert run is not None
    assert run.resume_from == Snapshot(4, "p/s-4")
    assert run.output_prefix.endswith(f"attempt-{task.fence + 1}")  # never the same folder
    assert again.failures == 0
    assert (job_of(database).status, job_of(database).started_at) == (
        JobStatus.RUNNING,
        started_at,
    )
    assert [line for line in story(database) if not line.startswith("Step")] == [
        "Fine-tuning job started",
        "The job was paused",
        "The job was resumed",
        "Training goes on after step 4",
    ]
    with database.read() as tx:
        assert [m.step for m in tx.jobs(OURS).metrics("ftjob-1")] == [1, 2, 3, 4]
        assert [c.step for c in tx.jobs(OURS).epoch_checkpoints("ftjob-1")] == [4]


def test_a_job_resumed_while_its_run_stops_waits_for_that(database: Database) -> None:
    task = training_job(database)
    pause_job(database, OURS, "ftjob-1")
    assert resume_job(database, OURS, "ftjob-1").status is JobStatus.QUEUED
    assert claim(database) is None  # its worker still has it
    with database.write() as tx:
        assert not tx.queue.renew(task, 60)
    tell(database, task, Snapshot(3, "p/s-3"))
    tell(database, task, RunPaused())
    run = training.begin_run(database, claimed(database))
    assert run is not None
    assert run.resume_from == Snapshot(3, "p/s-3")


def test_a_job_resumed_after_its_worker_fell_silent_is_claimed_once_the_lease_is_out(
    database: Database,
) -> None:
    task = training_job(database)
    pause_job(database, OURS, "ftjob-1")
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(lease_until=0))
    assert claim(database) is None  # paused it stays, whatever becomes of its worker
    resume_job(database, OURS, "ftjob-1")
    again = claimed(database)
    run = training.begin_run(database, again)
    assert run is not None
    assert run.resume_from == Snapshot(2, "p/s-2")
    with pytest.raises(LeaseLost):
        tell(database, task, some_metrics(4))


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_that_came_to_its_end_before_it_heard_is_finished_when_resumed(
    database: Database, resumed: bool
) -> None:
    task = training_job(database)
    pause_job(database, OURS, "ftjob-1")
    if resumed:
        resume_job(database, OURS, "ftjob-1")
    tell(database, task, Snapshot(9, "p/s-9"))
    assert not tell(database, task, RunFinished(7))
    assert states(database) == [("train_job", "queued" if resumed else "paused")]
    assert job_of(database).trained_tokens is None
    if not resumed:
        resume_job(database, OURS, "ftjob-1")
    again = claimed(database)
    run = training.begin_run(database, again)
    assert run is not None
    assert run.resume_from == Snapshot(9, "p/s-9")
    assert not tell(database, again, RunFinished(7))
    assert states(database) == [("publish_job", "queued")]
    assert (job_of(database).status, job_of(database).trained_tokens) == (JobStatus.RUNNING, 7)


def test_a_run_that_fails_while_it_stops_fails_its_job(database: Database) -> None:
    task = training_job(database)
    pause_job(database, OURS, "ftjob-1")
    assert not tell(database, task, RunFailed("non_finite_loss", "Diverged."))
    assert job_of(database).status is JobStatus.FAILED
    assert states(database) == []


def test_a_job_paused_between_claim_and_start_is_given_back(database: Database) -> None:
    add_job(database)
    task = claimed(database)
    pause_job(database, OURS, "ftjob-1")
    assert training.begin_run(database, task) is None
    assert (job_of(database).status, job_of(database).started_at) == (JobStatus.PAUSED, None)
    resume_job(database, OURS, "ftjob-1")
    assert claimed(database).fence == task.fence + 1


@pytest.mark.parametrize("held", [False, True])
def test_a_paused_job_is_cancelled(database: Database, held: bool) -> None:
    task = training_job(database)
    pause_job(database, OURS, "ftjob-1")
    if not held:
        tell(database, task, RunPaused())
    assert jobs.cancel_job(database, OURS, "ftjob-1").status is JobStatus.CANCELLED
    assert states(database) == []
    with pytest.raises(LeaseLost):
        tell(database, task, some_metrics(4))


@pytest.mark.parametrize("failed", [False, True])
def test_what_interrupts_a_run_does_not_end_its_pause(database: Database, failed: bool) -> None:
    task = training_job(database)
    pause_job(database, OURS, "ftjob-1")
    with database.write() as tx:
        tx.queue.put_back(task, 2.0, failed=failed)
    assert claim(database) is None
    resume_job(database, OURS, "ftjob-1")
    assert claimed(database).failures == int(failed)


NOT_PAUSED: dict[str, tuple[JobStatus, TaskKind | None, str]] = {
    "validating": (
        JobStatus.VALIDATING_FILES,
        TaskKind.PREPARE_JOB,
        "cannot be paused: it is validating its files; pause it once it is queued, or cancel it.",
    ),
    "publishing": (JobStatus.RUNNING, TaskKind.PUBLISH_JOB, "it is being published"),
    "paused": (JobStatus.PAUSED, TaskKind.TRAIN_JOB, "it is paused already"),
    "succeeded": (JobStatus.SUCCEEDED, None, "it has already succeeded"),
    "failed": (JobStatus.FAILED, None, "it has already failed"),
    "cancelled": (JobStatus.CANCELLED, None, "it has already cancelled"),
}


@pytest.mark.parametrize("why", NOT_PAUSED)
def test_a_job_that_cannot_be_paused_says_why_and_stays_as_it_is(
    database: Database, why: str
) -> None:
    status, kind, message = NOT_PAUSED[why]
    add_job(database, kind, status=status)
    before = states(database)
    with pytest.raises(InvalidRequest, match=message) as refused:
        pause_job(database, OURS, "ftjob-1")
    assert refused.value.code == "job_not_pausable"
    assert (job_of(database).status, states(database), story(database)) == (status, before, [])


@pytest.mark.parametrize("status", [status for status in JobStatus if status != "paused"])
def test_a_job_that_is_not_paused_is_not_resumed(database: Database, status: JobStatus) -> None:
    add_job(database, status=status)
    before = states(database)
    with pytest.raises(InvalidRequest, match="cannot be resumed") as refused:
        resume_job(database, OURS, "ftjob-1")
    assert refused.value.code == "job_not_resumable"
    assert (job_of(database).status, states(database), story(database)) == (status, before, [])


@pytest.mark.parametrize("act", [pause_job, resume_job])
def test_another_projects_job_answers_as_an_unknown_one(
    database: Database, act: Callable[..., Job]
) -> None:
    add_job(database)
    before = states(database)
    told = []
    for job_id in ("ftjob-1", "ftjob-x"):
        with pytest.raises(NotFound) as refused:
            act(database, THEIRS, job_id)
        told.append(refused.value.message.replace(job_id, "<id>"))
    assert told[0] == told[1]
    assert (job_of(database).status, states(database)) == (JobStatus.QUEUED, before)


def test_a_file_of_a_paused_job_cannot_be_deleted(
    database: Database, blobs: LocalBlobStore
) -> None:
    add_job(database)
    pause_job(database, OURS, "ftjob-1")
    with pytest.raises(Conflict) as refused:
        files.delete_file(database, blobs, OURS, "file-1")
    assert refused.value.code == "file_in_use"


def test_a_pause_waits_for_the_workers_write_and_sees_what_it_did(postgresql_url: str) -> None:
    with opened(postgresql_url) as database:
        add_job(database, TaskKind.PREPARE_JOB, status=JobStatus.VALIDATING_FILES)
        task = claimed(database)
        with database.write() as working:
            working.queue.finish(task)
            job = working.jobs(OURS).get("ftjob-1")
            assert job is not None
            working.jobs(OURS).advance(job, JobEvent.FILES_ACCEPTED)
            working.queue.add(OURS, TaskKind.TRAIN_JOB, "ftjob-1")
            with pytest.raises(InvalidRequest, match="validating"):
                pause_job(database, OURS, "ftjob-1")
        assert pause_job(database, OURS, "ftjob-1").status is JobStatus.PAUSED
        resume_job(database, OURS, "ftjob-1")
        task = claimed(database)
        training.begin_run(database, task)
        with database.write() as working:
            working.queue.hold(task)
            pausing = Waiting(lambda: pause_job(database, OURS, "ftjob-1"))
            pausing.wait_for_lock(database)
            working.queue.finish(task)
            working.queue.add(OURS, TaskKind.PUBLISH_JOB, "ftjob-1")
        assert isinstance(pausing.result(), InvalidRequest)
        assert states(database) == [("publish_job", "queued")]


class Machine:
    """A job of twelve steps, two workers that may die, and an owner who changes their mind."""

    STEPS, EVERY = 12, 4

    def __init__(self, database: Database, seed: int) -> None:
        self.database = database
        self.random = random.Random(seed)
        add_job(database)
        self.held: dict[int, tuple[Task, int, int]] = {}  # worker: task, step, total of its run
        self.acts: list[str] = []

    def act(self) -> None:
        """Do one thing at random and hold what must always be true."""
        act = self.random.choice(ACTS)
        self.acts.append(act.__name__)
        act(self)
        job = job_of(self.database)
        rows = states(self.database)
        assert len(rows) == (0 if job.status in TERMINAL else 1), (job.status, rows)
        if job.status is JobStatus.PAUSED:
            assert rows == [("train_job", "paused")]
            assert claim(self.database) is None
        elif rows:
            assert rows[0][1] != "paused"

    def pause(self) -> None:
        self._owner(pause_job)

    def resume(self) -> None:
        self._owner(resume_job)

    def cancel(self) -> None:
        if self.random.random() < 0.05:
            self._owner(jobs.cancel_job)

    def _owner(self, act: Callable[[Database, Any, str], Job]) -> None:
        with suppress(InvalidRequest):  # it says why; that the state is whole is held below
            act(self.database, OURS, "ftjob-1")

    def work(self) -> None:
        """Let a worker claim the task, or do a step of its run, heeding its lease or not."""
        worker = self.random.randrange(2)
        try:
            if worker not in self.held:
                self._claim(worker)
            else:
                self._go_on(worker, *self.held[worker])
        except LeaseLost:
            self.held.pop(worker, None)

    def _claim(self, worker: int) -> None:
        task = claim(self.database)
        if task is None:
            return
        if task.kind is TaskKind.PUBLISH_JOB:
            with self.database.write() as tx:
                tx.queue.finish(task)
                job = jobs.find_job(tx, OURS, "ftjob-1")
                tx.jobs(OURS).advance(job, JobEvent.PUBLISHED, finished_at=1)
            return
        run = training.begin_run(self.database, task)
        if run is not None:
            self.held[worker] = (task, 0 if run.resume_from is None else run.resume_from.step, 0)

    def _go_on(self, worker: int, task: Task, step: int, saved: int) -> None:
        heeds = self.random.random() < 0.7
        with self.database.write() as tx:
            goes_on = tx.queue.renew(task, 60)
        if heeds and not goes_on:
            tell(self.database, task, Snapshot(step, f"{task.fence}-{step}"))
            assert not tell(self.database, task, RunPaused())
            del self.held[worker]
        elif step == self.STEPS:
            assert not tell(self.database, task, RunFinished(5))
            del self.held[worker]
        else:
            tell(self.database, task, some_metrics(step + 1))
            if (step + 1) % self.EVERY == 0:
                tell(self.database, task, Snapshot(step + 1, f"{task.fence}-{step + 1}"))
            self.held[worker] = (task, step + 1, saved)

    def die(self) -> None:
        """Kill a worker: its lease runs out, with nobody to say so."""
        worker = self.random.randrange(2)
        if self.held.pop(worker, None) is not None and not self.held:
            with self.database.write() as tx:
                tx._connection.execute(
                    tasks.update().where(tasks.c.lease_until.is_not(None)).values(lease_until=0)
                )

    def freeze(self) -> None:
        """Let the lease run out under a worker that will wake up again."""
        with self.database.write() as tx:
            tx._connection.execute(
                tasks.update().where(tasks.c.lease_until.is_not(None)).values(lease_until=0)
            )

    def give_back(self) -> None:
        """Stop a worker, or break its child."""
        worker = self.random.randrange(2)
        if worker in self.held:
            task = self.held.pop(worker)[0]
            with self.database.write() as tx:
                tx.queue.put_back(task, 0.0, failed=self.random.random() < 0.5)


ACTS: tuple[Callable[[Machine], None], ...] = (
    *(Machine.work,) * 6,
    Machine.pause,
    Machine.resume,
    Machine.cancel,
    Machine.die,
    Machine.freeze,
    Machine.give_back,
)


@pytest.mark.parametrize("seed", range(12))
def test_in_whatever_order_things_happen_one_state_results_and_the_job_can_be_ended(
    database: Database, seed: int
) -> None:
    machine = Machine(database, seed)
    for _ in range(60):
        machine.act()
    # Everyone is gone; one worker comes that does its work.
    machine.held.clear()
    machine.freeze()
    if job_of(database).status is JobStatus.PAUSED:
        resume_job(database, OURS, "ftjob-1")
    for _ in range(3 * Machine.STEPS):
        if not machine.held:
            machine._claim(0)
        else:
            machine._go_on(0, *machine.held[0])
    job = job_of(database)
    assert job.status in (JobStatus.SUCCEEDED, JobStatus.CANCELLED), machine.acts
    assert states(database) == []
    if job.status is JobStatus.SUCCEEDED:
        with database.read() as tx:
            steps = [m.step for m in tx.jobs(OURS).metrics("ftjob-1")]
        assert steps == list(range(1, Machine.STEPS + 1)), machine.acts


def test_a_job_abandoned_while_paused_fails(database: Database) -> None:
    task = training_job(database)
    pause_job(database, OURS, "ftjob-1")
    training.abandon(database, task, JobError("server_error", "It broke.", None))
    assert job_of(database).status is JobStatus.FAILED
    assert states(database) == []
