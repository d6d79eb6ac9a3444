"""Jobs as their owners see them: accepted or refused, cancelled, followed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from support.databases import opened
from support.racing import Waiting
from support.rows import OURS, THEIRS, a_checkpoint, a_file, a_job, a_model, an_entry
from tunery.domain.errors import Conflict, InvalidRequest, NotFound, TuneryError
from tunery.domain.files import FilePurpose
from tunery.domain.jobs import JobError, JobEvent, JobStatus, RequestedHyperparameters
from tunery.domain.tasks import LeaseLost, TaskKind
from tunery.services import jobs
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database

REQUEST = jobs.JobRequest(
    model="gpt-tiny",
    training_file="file-1",
    validation_file=None,
    suffix=None,
    seed=None,
    hyperparameters=RequestedHyperparameters(),
    metadata=None,
)


def add_files(database: Database) -> None:
    with database.write() as tx:
        tx.files(OURS).add(a_file())
        tx.files(OURS).add(a_file("file-2"))
        tx.files(OURS).add(a_file("file-batch", purpose=FilePurpose.BATCH))
        tx.files(OURS).add(a_file("file-results", purpose=FilePurpose.FINE_TUNE_RESULTS))
        tx.files(THEIRS).add(a_file("file-theirs"))


def test_a_job_is_accepted_and_queued_to_be_prepared(
    database: Database, directory: ModelDirectory
) -> None:
    add_files(database)
    request = dataclasses.replace(
        REQUEST,
        validation_file="file-2",
        suffix="my-Model_1.0",
        seed=42,
        hyperparameters=RequestedHyperparameters(n_epochs=2),
        metadata={"k": "v"},
    )
    job = jobs.create_job(database, directory, OURS, request)
    assert jobs.get_job(database, OURS, job.id) == job
    assert (job.status, job.model, job.base) == (JobStatus.VALIDATING_FILES, "gpt-tiny", "tiny")
    assert job.base_digest == directory.base().digest
    assert (job.seed, job.suffix, job.metadata) == (42, "my-Model_1.0", {"k": "v"})
    assert (job.training_file, job.validation_file) == ("file-1", "file-2")
    assert (job.parent_model, job.resolved, job.error, job.fine_tuned_model) == (None,) * 4
    events = jobs.list_events(database, OURS, job.id, after=None, limit=9)
    assert [event.message for event in events.items] == [
        "Validating training file: file-1 and validation file: file-2",
        f"Created fine-tuning job: {job.id}",
    ]
    with database.write() as tx:
        task = tx.queue.claim([TaskKind.PREPARE_JOB], 60)
    assert task is not None
    assert (task.subject, task.tenant) == (job.id, OURS)


def test_a_job_without_a_seed_gets_one(database: Database, directory: ModelDirectory) -> None:
    add_files(database)
    seeds = {jobs.create_job(database, directory, OURS, REQUEST).seed for _ in range(3)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_tuned_model_is_tuned_further_by_its_owner_only(
    database: Database, directory: ModelDirectory
) -> None:
    add_files(database)
    parent = a_model(base_digest=directory.base().digest)
    with database.write() as tx:
        tx.models(OURS).add(parent)
    request = dataclasses.replace(REQUEST, model=parent.name)
    job = jobs.create_job(database, directory, OURS, request)
    assert (job.parent_model, job.model, job.base) == (parent.name, parent.name, "tiny")
    with pytest.raises(InvalidRequest) as refused:
        jobs.create_job(
            database, directory, THEIRS, dataclasses.replace(request, training_file="file-theirs")
        )
    assert refused.value.code == "model_not_available"


REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "unknown model": ({"model": "gpt-5"}, "model_not_available", None),
    "model with a NUL": ({"model": "a\0"}, "model_not_available", None),
    "unknown file": ({"training_file": "file-x"}, "invalid_file", "training_file"),
    "file with a NUL": ({"training_file": "a\0"}, "invalid_file", "training_file"),
    "their file": ({"training_file": "file-theirs"}, "invalid_file", "training_file"),
    "batch file": ({"training_file": "file-batch"}, "invalid_file", "training_file"),
    "result file": ({"training_file": "file-results"}, "invalid_file", "training_file"),
    "unknown held-out file": ({"validation_file": "file-x"}, "invalid_file", "validation_file"),
    "batch held-out file": ({"validation_file": "file-batch"}, "invalid_file", "validation_file"),
    "empty suffix": ({"suffix": ""}, "invalid_suffix", "suffix"),
    "long suffix": ({"suffix": "x" * 65}, "invalid_suffix", "suffix"),
    "suffix with a colon": ({"suffix": "a:b"}, "invalid_suffix", "suffix"),
    "suffix on two lines": ({"suffix": "a\n"}, "invalid_suffix", "suffix"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_job_is_refused_and_nothing_of_it_is_kept(
    database: Database, directory: ModelDirectory, why: str
) -> None:
    changes, code, param = REFUSED[why]
    add_files(database)
    with pytest.raises(InvalidRequest) as refused:
        jobs.create_job(database, directory, OURS, dataclasses.replace(REQUEST, **changes))
    if "NUL" not in why:  # that one may be refused for itself
        assert (refused.value.code, refused.value.param) == (code, param)
    assert jobs.list_jobs(database, OURS, metadata={}, after=None, limit=9).items == ()
    with database.write() as tx:
        assert tx.queue.claim(list(TaskKind), 60) is None


def test_a_file_of_another_project_is_refused_as_an_unknown_one(
    database: Database, directory: ModelDirectory
) -> None:
    add_files(database)
    told = []
    for file_id in ("file-theirs", "file-unknown"):
        with pytest.raises(InvalidRequest) as refused:
            jobs.create_job(
                database, directory, OURS, dataclasses.replace(REQUEST, training_file=file_id)
            )
        told.append(refused.value.message.replace(file_id, "<id>"))
    assert told[0] == told[1]


ACTS: dict[str, Callable[[Database, str], Any]] = {
    "get": lambda db, i: jobs.get_job(db, THEIRS, i),
    "cancel": lambda db, i: jobs.cancel_job(db, THEIRS, i),
    "events": lambda db, i: jobs.list_events(db, THEIRS, i, after=None, limit=9),
    "checkpoints": lambda db, i: jobs.list_checkpoints(db, THEIRS, i, after=None, limit=9),
    "list": lambda db, i: jobs.list_jobs(db, THEIRS, metadata={}, after=i, limit=9),
}


@pytest.mark.parametrize("act", ACTS)
def test_another_projects_job_answers_as_an_unknown_one(database: Database, act: str) -> None:
    with database.write() as tx:
        tx.jobs(OURS).add(a_job())
        tx.jobs(OURS).log("ftjob-1", an_entry(1))
        tx.jobs(OURS).add_checkpoint(a_checkpoint(1))
        tx.queue.add(OURS, TaskKind.PREPARE_JOB, "ftjob-1")
    told = []
    for job_id in ("ftjob-1", "ftjob-x"):
        with pytest.raises((NotFound, InvalidRequest)) as refused:
            ACTS[act](database, job_id)
        error = refused.value
        told.append((type(error), error.message.replace(job_id, "<id>"), error.param, error.code))
    assert told[0] == told[1]
    assert jobs.get_job(database, OURS, "ftjob-1") == a_job()
    with database.write() as tx:
        assert tx.queue.claim([TaskKind.PREPARE_JOB], 60) is not None


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_is_cancelled_until_it_has_ended(database: Database, status: JobStatus) -> None:
    job = a_job(status=status)
    with database.write() as tx:
        tx.jobs(OURS).add(job)
        tx.queue.add(OURS, TaskKind.TRAIN_JOB, job.id)
        task = tx.queue.claim([TaskKind.TRAIN_JOB], 60)
    assert task is not None
    if status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED):
        with pytest.raises(InvalidRequest, match=f"already {status}"):
            jobs.cancel_job(database, OURS, job.id)
        assert jobs.get_job(database, OURS, job.id) == job
        return
    cancelled = jobs.cancel_job(database, OURS, job.id)
    assert cancelled == dataclasses.replace(
        job, status=JobStatus.CANCELLED, finished_at=cancelled.finished_at
    )
    assert cancelled.finished_at is not None
    events = jobs.list_events(database, OURS, job.id, after=None, limit=1)
    assert [event.message for event in events.items] == ["The job was cancelled"]
    with pytest.raises(LeaseLost), database.write() as tx:
        tx.queue.hold(task)


def test_a_failed_job_tells_why(database: Database) -> None:
    error = JobError("some_code", "What was wrong.", "training_file")
    with database.write() as tx:
        tx.jobs(OURS).add(a_job())
        tx.queue.add(OURS, TaskKind.PREPARE_JOB, "ftjob-1")
        jobs.fail_job(tx, OURS, a_job(), error)
        assert tx.queue.claim([TaskKind.PREPARE_JOB], 60) is None
    job = jobs.get_job(database, OURS, "ftjob-1")
    assert (job.status, job.error) == (JobStatus.FAILED, error)
    (event,) = jobs.list_events(database, OURS, "ftjob-1", after=None, limit=9).items
    assert (event.level, event.message) == ("error", "What was wrong.")


def test_a_cancellation_waits_for_the_workers_write_and_both_stand(postgresql_url: str) -> None:
    with opened(postgresql_url) as database:
        with database.write() as tx:
            tx.jobs(OURS).add(a_job(status=JobStatus.RUNNING))
            tx.queue.add(OURS, TaskKind.TRAIN_JOB, "ftjob-1")
            task = tx.queue.claim([TaskKind.TRAIN_JOB], 60)
        assert task is not None
        with database.write() as working:
            working.queue.hold(task)
            cancelling = Waiting(lambda: jobs.cancel_job(database, OURS, "ftjob-1"))
            cancelling.wait_for_lock(database)
            working.jobs(OURS).set_trained_tokens("ftjob-1", 5)
        assert cancelling.result() is None
        job = jobs.get_job(database, OURS, "ftjob-1")
        assert (job.status, job.trained_tokens) == (JobStatus.CANCELLED, 5)


def test_a_cancellation_takes_the_task_that_the_worker_adds_meanwhile(postgresql_url: str) -> None:
    with opened(postgresql_url) as database:
        with database.write() as tx:
            tx.jobs(OURS).add(a_job())
            tx.queue.add(OURS, TaskKind.PREPARE_JOB, "ftjob-1")
            task = tx.queue.claim([TaskKind.PREPARE_JOB], 60)
        assert task is not None
        with database.write() as working:
            working.queue.finish(task)
            cancelling = Waiting(lambda: jobs.cancel_job(database, OURS, "ftjob-1"))
            cancelling.wait_for_lock(database)
            working.jobs(OURS).advance(a_job(), JobEvent.FILES_ACCEPTED)
            working.queue.add(OURS, TaskKind.TRAIN_JOB, "ftjob-1")
        error = cancelling.result()
        job = jobs.get_job(database, OURS, "ftjob-1")
        if isinstance(error, Conflict):  # the caller is told to look at it again: as good
            assert job.status is JobStatus.QUEUED
            return
        assert not isinstance(error, TuneryError), error
        assert job.status is JobStatus.CANCELLED
        with database.write() as tx:
            assert tx.queue.claim(list(TaskKind), 60) is None
