"""What becomes of a task: done, given back, or its job failed with a word to its owner."""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa

from support.rows import (
    OURS,
    a_batch,
    a_file,
    a_job,
    an_epoch,
    batch_line,
    chat_lines,
    render_with,
)
from tunery.domain.batches import Answer, BatchStatus
from tunery.domain.errors import Overloaded, StorageFull, TuneryError, Unavailable
from tunery.domain.files import FilePurpose
from tunery.domain.jobs import Adapter, Hyperparameters, Job, JobStatus, Snapshot
from tunery.domain.ports.engine import Engine
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
from tunery.domain.tasks import MAX_FAILURES, LeaseLost, Task, TaskKind
from tunery.services import batches, jobs, pausing
from tunery.services.models import ModelDirectory
from tunery.services.publishing import Tolerance
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.clock import database_now
from tunery.storage.database import Database
from tunery.storage.tables import tasks
from tunery.telemetry import logger
from tunery.training.cache_folder import CacheFolder
from tunery.worker.batches import BatchWork
from tunery.worker.executor import ChildDied
from tunery.worker.lease import Lease
from tunery.worker.portal import Portal
from tunery.worker.stages import Stages
from tunery.worker.tracking import Tracking

SCORES = [-1.0, -2.0]


class ScriptedRun:
    """Reports what it was given, calls what it was given, and ends."""

    def __init__(self, script: Sequence[TrainingReport | Callable[[], None]]) -> None:
        self.script = list(script)
        self.stopped = False
        self.paused = False

    @property
    def finished(self) -> bool:
        return not self.script

    def reports(self, wait_s: float) -> Iterator[TrainingReport]:
        while self.script:
            step = self.script.pop(0)
            if callable(step):
                step()
                return  # silence: the worker looks around
            yield step

    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            self.script = [Snapshot(1, "p/s-1"), RunPaused()]

    def stop(self) -> None:
        self.stopped = True


class ScriptedExecutor:
    """Starts scripted runs."""

    def __init__(self, *script: TrainingReport | Callable[[], None]) -> None:
        self.script = script
        self.started: list[ScriptedRun] = []

    def start(self, run: TrainingRun) -> ScriptedRun:
        self.started.append(ScriptedRun(self.script))
        return self.started[-1]

    def reference(self, request: ProofRequest) -> list[list[list[float]]]:
        return [[SCORES for _ in request.token_ids] for _ in request.adapters]


class BusyEngine:
    """Has no place at first; then scores as the reference does."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals

    async def score(
        self, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter
    ) -> list[list[float]]:
        if self.refusals:
            self.refusals -= 1
            raise Overloaded("Every place is in use.", retry_after_s=0)
        return [SCORES for _ in token_ids]


class FaultyEngine:
    """Scores as the reference does, but not the adapter of the step `bad`."""

    def __init__(self, bad: int | None) -> None:
        self.bad = bad

    async def score(
        self, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter
    ) -> list[list[float]]:
        wrong = adapter.key.endswith(f"step-{self.bad}")
        return [[score - wrong for score in SCORES] for _ in token_ids]


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


@pytest.fixture
def run(
    database: Database,
    blobs: LocalBlobStore,
    directory: ModelDirectory,
    portal: Portal,
    tmp_path: Path,
) -> Callable[..., None]:
    """Return a function that carries out a task with a scripted executor."""

    def carry_out(
        task: Task,
        executor: ScriptedExecutor | None = None,
        stopping: threading.Event | None = None,
        engine: object = None,
    ) -> None:
        stages = Stages(
            database=database,
            blobs=blobs,
            caches=CacheFolder(tmp_path / "tokens", 2**30),
            directory=directory,
            renderers=render_with,
            engine=cast(Engine, engine),
            executor=executor or ScriptedExecutor(),
            portal=portal,
            tolerance=Tolerance(0.1, 0.1, 1),
            tracking=Tracking(database, None, logger()),
            batches=BatchWork(
                database, blobs, portal, answer=cast(Answer, None), concurrency=1, log=logger()
            ),
            log=logger(),
        )
        with Lease(database, task, 60, stopping or threading.Event()) as lease:
            stages.run(task, lease)

    return carry_out


def add_job(database: Database, kind: TaskKind = TaskKind.TRAIN_JOB, **changes: Any) -> Task:
    job = a_job(**{"status": JobStatus.QUEUED, "resolved": Hyperparameters(1, 1, 1.0), **changes})
    with database.write() as tx:
        tx.files(OURS).add(a_file())
        tx.jobs(OURS).add(job)
        tx.queue.add(OURS, kind, job.id)
    return claim(database, kind)


def claim(database: Database, *kinds: TaskKind) -> Task:
    with database.write() as tx:
        task = tx.queue.claim(kinds or list(TaskKind), 60)
    assert task is not None
    return task


def waiting(database: Database) -> list[tuple[str, str, int, bool]]:
    """Return kind, state, failures and whether it is delayed, of every task."""
    with database.read() as tx:
        rows = tx._connection.execute(tasks.select().order_by(tasks.c.id)).all()
        free = tx.queue.has_free(list(TaskKind))
    return [(row.kind, row.state, row.failures, not free) for row in rows]


def job_of(database: Database) -> Job:
    return jobs.get_job(database, OURS, "ftjob-1")


def test_a_run_that_finishes_is_handed_on_to_be_published(
    database: Database, run: Callable[..., None]
) -> None:
    task = add_job(database)
    executor = ScriptedExecutor(RunStarted(1, 0), RunFinished(123))
    run(task, executor)
    assert (job_of(database).status, job_of(database).trained_tokens) == (JobStatus.RUNNING, 123)
    assert waiting(database) == [("publish_job", "queued", 0, False)]
    assert executor.started[0].stopped


def test_a_run_that_fails_fails_its_job_in_its_own_words(
    database: Database, run: Callable[..., None]
) -> None:
    run(add_job(database), ScriptedExecutor(RunFailed("diverged", "The loss is not a number.")))
    job = job_of(database)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "diverged")
    assert job.error.message == "The loss is not a number."
    assert waiting(database) == []


@pytest.mark.parametrize("kind", [TaskKind.PREPARE_JOB, TaskKind.PUBLISH_JOB])
def test_a_job_whose_base_has_changed_fails(
    database: Database, run: Callable[..., None], kind: TaskKind
) -> None:
    begun = {
        TaskKind.PREPARE_JOB: JobStatus.VALIDATING_FILES,
        TaskKind.PUBLISH_JOB: JobStatus.RUNNING,
    }
    run(add_job(database, kind, status=begun[kind], base_digest="0" * 64))
    job = job_of(database)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "model_not_available")
    assert waiting(database) == []


@pytest.mark.parametrize(
    "error",
    [Unavailable("no engine"), StorageFull("full"), ChildDied("killed"), LeaseLost("another's")],
    ids=lambda error: type(error).__name__,
)
def test_an_interruption_keeps_the_job_and_counts_unless_the_task_is_lost(
    database: Database, run: Callable[..., None], error: Exception
) -> None:
    executor = ScriptedExecutor(RunStarted(1, 0), raising(error))
    run(add_job(database), executor)
    assert job_of(database).status is JobStatus.RUNNING
    if isinstance(error, LeaseLost):
        assert waiting(database) == [("train_job", "running", 0, True)]
    else:
        assert waiting(database) == [("train_job", "queued", 1, True)]
    assert executor.started[0].stopped


@pytest.mark.parametrize("refusals", [0, 3, 30])
def test_publishing_waits_while_the_engine_is_busy_and_that_is_no_failure(
    database: Database, run: Callable[..., None], directory: ModelDirectory, refusals: int
) -> None:
    digest = directory.base().digest
    task = add_job(database, TaskKind.PUBLISH_JOB, status=JobStatus.RUNNING, base_digest=digest)
    with database.write() as tx:
        tx.jobs(OURS).add_epoch_checkpoint("ftjob-1", an_epoch(3))
    run(task, engine=BusyEngine(refusals))
    if refusals == 30:  # for too long: tried again later, the reference anew
        assert job_of(database).status is JobStatus.RUNNING
        assert waiting(database) == [("publish_job", "queued", 0, True)]
    else:
        assert job_of(database).status is JobStatus.SUCCEEDED
        assert [row[0] for row in waiting(database)] == []


def test_a_job_that_failed_too_often_fails(database: Database, run: Callable[..., None]) -> None:
    task = add_job(database)
    for failure in range(1, MAX_FAILURES + 1):
        assert task.failures == failure - 1
        assert job_of(database).status in (JobStatus.QUEUED, JobStatus.RUNNING)
        run(task, ScriptedExecutor(raising(ChildDied("out of memory"))))
        if failure < MAX_FAILURES:
            with database.write() as tx:
                tx._connection.execute(tasks.update().values(run_after=0))
            task = claim(database)
    job = job_of(database)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "server_error")
    assert "out of memory" in job.error.message
    assert waiting(database) == []


def test_a_task_that_broke_its_workers_too_often_is_not_tried_again(
    database: Database, run: Callable[..., None]
) -> None:
    task = add_job(database)
    for _ in range(MAX_FAILURES):  # each worker falls silent
        with database.write() as tx:
            tx._connection.execute(tasks.update().values(lease_until=0))
        task = claim(database)
    assert task.failures == MAX_FAILURES
    executor = ScriptedExecutor(RunFinished(1))
    run(task, executor)
    assert executor.started == []
    assert job_of(database).status is JobStatus.FAILED
    assert waiting(database) == []


@pytest.mark.parametrize(("failures", "delay_s"), [(0, 2), (1, 4), (2, 8), (5, 60), (6, 60)])
def test_an_interrupted_run_is_tried_again_each_time_later(
    database: Database, run: Callable[..., None], failures: int, delay_s: float
) -> None:
    task = add_job(database)
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(failures=failures))
        before = tx._connection.execute(sa.select(database_now())).scalar_one()
    run(task, ScriptedExecutor(RunStarted(1, 1), RunInterrupted("The disk is full.")))
    assert job_of(database).status is JobStatus.RUNNING
    assert waiting(database) == [("train_job", "queued", failures + 1, True)]
    with database.read() as tx:
        due = tx._connection.execute(sa.select(tasks.c.run_after)).scalar_one()
    assert delay_s <= due - before < delay_s + 30


def test_a_run_that_is_interrupted_again_and_again_fails_in_its_own_words(
    database: Database, run: Callable[..., None]
) -> None:
    task = add_job(database)
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(failures=MAX_FAILURES - 1))
    run(task, ScriptedExecutor(RunInterrupted("The disk is full.")))
    job = job_of(database)
    assert job.error is not None
    assert job.error.message == "It failed 8 times; the last time: The disk is full."


@pytest.mark.parametrize("ended", [JobStatus.CANCELLED, JobStatus.FAILED])
@pytest.mark.parametrize("bad", [None, 3, 6])
def test_what_a_job_made_before_it_ended_is_proven_and_published_each_for_itself(
    database: Database,
    blobs: LocalBlobStore,
    run: Callable[..., None],
    directory: ModelDirectory,
    ended: JobStatus,
    bad: int | None,
) -> None:
    digest = directory.base().digest
    task = add_job(database, TaskKind.KEEP_CHECKPOINTS, status=ended, base_digest=digest)
    prefix = f"{OURS.project_id}/jobs/ftjob-1"
    steps = (3, 6)
    with database.write() as tx:
        for step in steps:
            adapter = Adapter(f"{prefix}/attempt-1/step-{step}", f"{step:064d}")
            made = dataclasses.replace(an_epoch(step), adapter=adapter)
            tx.jobs(OURS).add_epoch_checkpoint("ftjob-1", made)
            blobs.put(f"{adapter.key}/adapter_model.safetensors", b"w")
    run(task, engine=FaultyEngine(bad))
    good = [step for step in steps if step != bad]
    assert job_of(database).status is ended
    assert job_of(database).fine_tuned_model is None
    assert waiting(database) == []
    published = jobs.list_checkpoints(database, OURS, "ftjob-1", after=None, limit=9).items
    assert sorted(one.step for one in published) == good
    with database.read() as tx:
        names = {model.name for model in tx.models(OURS).all()}
    assert names == {one.model_name for one in published}
    assert all(f":ckpt-step-{one.step}" in one.model_name for one in published)
    assert [key.split("/")[-2] for key in blobs.keys(prefix)] == [f"step-{step}" for step in good]


def test_a_bug_fails_the_job_and_its_text_stays_in_the_log(
    database: Database, run: Callable[..., None]
) -> None:
    run(add_job(database), ScriptedExecutor(raising(ZeroDivisionError("a secret of ours"))))
    job = job_of(database)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "server_error")
    assert "secret" not in job.error.message
    assert waiting(database) == []


def test_an_error_for_the_owner_fails_the_job_in_its_words(
    database: Database, run: Callable[..., None]
) -> None:
    run(add_job(database), ScriptedExecutor(raising(TuneryError("Do this.", code="why"))))
    job = job_of(database)
    assert job.error is not None
    assert (job.status, job.error.code, job.error.message) == (JobStatus.FAILED, "why", "Do this.")


def test_a_worker_that_stops_gives_its_run_back_at_once(
    database: Database, run: Callable[..., None]
) -> None:
    stopping = threading.Event()
    executor = ScriptedExecutor(RunStarted(1, 0), stopping.set, RunStarted(1, 0), RunFinished(1))
    run(add_job(database), executor, stopping)
    assert waiting(database) == [("train_job", "queued", 0, False)]
    assert job_of(database).status is JobStatus.RUNNING
    assert executor.started[0].stopped


def test_a_job_cancelled_while_it_trains_stays_cancelled_and_its_files_go(
    database: Database, blobs: LocalBlobStore, run: Callable[..., None]
) -> None:
    def cancel() -> None:
        jobs.cancel_job(database, OURS, "ftjob-1")

    task = add_job(database)
    blobs.put(f"{OURS.project_id}/jobs/ftjob-1/attempt-1/step-1/adapter_model.safetensors", b"w")
    run(task, ScriptedExecutor(RunStarted(1, 0), cancel, RunFinished(1)))
    assert (job_of(database).status, job_of(database).trained_tokens) == (JobStatus.CANCELLED, None)
    assert waiting(database) == []
    assert list(blobs.keys(OURS.project_id)) == []


@pytest.mark.parametrize("ends", ["cancelled", "failed", "given back"])
def test_a_jobs_token_cache_goes_when_the_job_has_ended_and_not_before(
    database: Database, run: Callable[..., None], tmp_path: Path, ends: str
) -> None:
    caches = CacheFolder(tmp_path / "tokens", 2**30)
    stopping = threading.Event()

    def cancel() -> None:
        jobs.cancel_job(database, OURS, "ftjob-1")

    end: dict[str, Callable[[], None]] = {
        "cancelled": cancel,
        "failed": raising(TuneryError("No.")),
        "given back": stopping.set,
    }

    def read() -> None:
        for job_id in ("ftjob-1", "ftjob-2"):
            with caches.held(f"{OURS.project_id}/jobs/{job_id}") as folder:
                (folder / "shard").write_bytes(b"x")

    run(add_job(database), ScriptedExecutor(read, end[ends], RunStarted(1, 0)), stopping)
    kept = ["ftjob-2"] if ends != "given back" else ["ftjob-1", "ftjob-2"]
    assert caches.jobs() == [f"{OURS.project_id}/jobs/{job_id}" for job_id in kept]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_whose_job_is_paused_is_asked_to_stop_and_given_back(
    database: Database, run: Callable[..., None], resumed: bool
) -> None:
    def pause() -> None:
        pausing.pause_job(database, OURS, "ftjob-1")
        if resumed:
            pausing.resume_job(database, OURS, "ftjob-1")

    def step() -> None:  # again and again, until the worker has heard
        handle = executor.started[0]
        handle.script += [step]
        threading.Event().wait(0.01)

    executor = ScriptedExecutor(RunStarted(1, 0), pause, step)
    run(add_job(database), executor)
    handle = executor.started[0]
    assert (handle.paused, handle.stopped) == (True, True)
    assert waiting(database) == [
        ("train_job", "queued" if resumed else "paused", 0, not resumed),
    ]
    assert job_of(database).status is (JobStatus.QUEUED if resumed else JobStatus.PAUSED)
    with database.read() as tx:
        assert tx.jobs(OURS).snapshot("ftjob-1") == Snapshot(1, "p/s-1")


def test_a_job_paused_before_its_run_starts_starts_none(
    database: Database, run: Callable[..., None]
) -> None:
    task = add_job(database)
    pausing.pause_job(database, OURS, "ftjob-1")
    executor = ScriptedExecutor(RunFinished(1))
    run(task, executor)
    assert executor.started == []
    assert waiting(database) == [("train_job", "paused", 0, True)]


@pytest.mark.parametrize("kind", [TaskKind.PREPARE_JOB, TaskKind.TRAIN_JOB, TaskKind.PUBLISH_JOB])
@pytest.mark.parametrize("status", [JobStatus.CANCELLED, JobStatus.FAILED, JobStatus.SUCCEEDED])
def test_a_task_of_a_job_that_has_ended_is_done(
    database: Database, run: Callable[..., None], kind: TaskKind, status: JobStatus
) -> None:
    run(add_job(database, kind, status=status))
    assert job_of(database).status is status
    assert waiting(database) == []


def test_a_job_whose_file_is_unchecked_waits_and_that_is_no_failure(
    database: Database, run: Callable[..., None], directory: ModelDirectory
) -> None:
    digest = directory.base().digest
    run(
        add_job(
            database,
            TaskKind.PREPARE_JOB,
            status=JobStatus.VALIDATING_FILES,
            resolved=None,
            base_digest=digest,
        )
    )
    assert [row[:3] for row in waiting(database)] == [("prepare_job", "queued", 0)]
    assert job_of(database).status is JobStatus.VALIDATING_FILES


def test_a_file_is_checked(
    database: Database, blobs: LocalBlobStore, run: Callable[..., None]
) -> None:
    blobs.put(a_file().blob_key, chat_lines(3))
    with database.write() as tx:
        tx.files(OURS).add(a_file())
        tx.queue.add(OURS, TaskKind.CHECK_FILE, "file-1")
    run(claim(database))
    assert waiting(database) == []
    with database.read() as tx:
        report = tx.files(OURS).report("file-1")
    assert report is not None
    assert report.examples == 3


# ---- batches


def add_batch(database: Database, blobs: LocalBlobStore, kind: TaskKind, status: str) -> Task:
    batch = a_batch(status=BatchStatus(status), total=1)
    with database.write() as tx:
        tx.files(OURS).add(a_file(batch.input_file_id, purpose=FilePurpose.BATCH))
        tx.batches(OURS).add(batch)
        tx.queue.add(OURS, kind, batch.id)
    return claim(database, kind)


@pytest.mark.parametrize(
    ("kind", "status", "next_task"),
    [
        (TaskKind.CHECK_BATCH, "validating", None),
        (TaskKind.RUN_BATCH, "in_progress", "end_batch"),
    ],
)
def test_a_batch_that_broke_its_workers_too_often_fails(
    database: Database,
    blobs: LocalBlobStore,
    run: Callable[..., None],
    kind: TaskKind,
    status: str,
    next_task: str | None,
) -> None:
    task = add_batch(database, blobs, kind, status)
    for _ in range(MAX_FAILURES):  # each worker falls silent
        with database.write() as tx:
            tx._connection.execute(tasks.update().values(lease_until=0))
        task = claim(database)
    run(task)
    batch = batches.get_batch(database, OURS, "batch_1")
    assert [problem.code for problem in batch.errors] == ["server_error"]
    assert "broke its worker 8 times" in batch.errors[0].message
    if next_task is None:
        assert waiting(database) == []
    else:  # what was answered is delivered first
        assert waiting(database) == [(next_task, "queued", 0, False)]
        blobs.put(a_file().blob_key, batch_line(1))
        run(claim(database))
    assert batches.get_batch(database, OURS, "batch_1").status is BatchStatus.FAILED


def test_the_files_of_a_batch_are_written_however_often_that_failed(
    database: Database, blobs: LocalBlobStore, run: Callable[..., None]
) -> None:
    task = add_batch(database, blobs, TaskKind.END_BATCH, "in_progress")
    blobs.put(a_file().blob_key, batch_line(1))
    for _ in range(MAX_FAILURES + 1):  # each worker falls silent
        with database.write() as tx:
            tx._connection.execute(tasks.update().values(lease_until=0))
        task = claim(database)
    run(task)
    assert batches.get_batch(database, OURS, "batch_1").status is BatchStatus.EXPIRED
    assert waiting(database) == []


def test_a_batch_whose_input_cannot_be_read_fails_and_says_so(
    database: Database, blobs: LocalBlobStore, run: Callable[..., None]
) -> None:
    run(add_batch(database, blobs, TaskKind.CHECK_BATCH, "validating"))
    batch = batches.get_batch(database, OURS, "batch_1")
    assert batch.status is BatchStatus.FAILED
    assert "No blob" in batch.errors[0].message
    assert waiting(database) == []
