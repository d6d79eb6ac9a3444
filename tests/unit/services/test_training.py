"""What a run and its steps say, and the result file."""

import csv
import io
import time

import pytest

from support.rows import OURS, a_file, a_job, an_epoch, some_metrics
from tunery.domain.jobs import Hyperparameters, JobError, JobStatus, Snapshot, StepMetrics
from tunery.domain.ports.training import MadeWith, RunFailed, RunStarted
from tunery.domain.tasks import Task, TaskKind
from tunery.services import jobs, training
from tunery.services.training import results_csv, step_message
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.tables import epoch_checkpoints
from tunery.wire.fine_tuning import to_wire_job

STEPS = [
    StepMetrics(1, 3, 2.0, 0.5),
    StepMetrics(2, 3, 1.234567, 0.0, valid_loss=1.5, valid_mean_token_accuracy=1.0),
    StepMetrics(3, 3, 0.000004, 1.0, valid_loss=0.1, full_valid_loss=9.0),
]


def test_the_result_file_has_openais_columns_and_blanks_where_there_is_no_number() -> None:
    assert results_csv(STEPS).decode() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        "1,2.00000,0.50000,,\n"
        "2,1.23457,0.00000,1.50000,1.00000\n"
        "3,0.00000,1.00000,0.10000,\n"
    )


def test_the_result_file_is_read_back_by_any_csv_reader() -> None:
    rows = list(csv.DictReader(io.StringIO(results_csv(STEPS).decode())))
    assert [float(row["train_loss"]) for row in rows] == pytest.approx([2, 1.234567, 0], abs=1e-5)
    assert [row["valid_loss"] for row in rows] == ["", "1.50000", "0.10000"]


def test_rewards_stand_behind_openais_columns_where_there_are_any() -> None:
    steps = [
        StepMetrics(
            1,
            2,
            0.5,
            0.25,
            train_chosen_reward=1.0,
            train_rejected_reward=-0.5,
            train_reward_margin=1.5,
            train_reward_accuracy=0.75,
        ),
        StepMetrics(
            2,
            2,
            0.25,
            0.5,
            train_reward_margin=0.0,
            valid_loss=2.0,
            valid_chosen_reward=0.125,
            valid_rejected_reward=3.0,
            valid_reward_margin=-2.875,
            valid_reward_accuracy=0.0,
        ),
    ]
    assert results_csv(steps).decode() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,"
        "train_chosen_reward,train_rejected_reward,train_reward_margin,train_reward_accuracy,"
        "valid_chosen_reward,valid_rejected_reward,valid_reward_margin,valid_reward_accuracy\n"
        "1,0.50000,0.25000,,,1.00000,-0.50000,1.50000,0.75000,,,,\n"
        "2,0.25000,0.50000,2.00000,,,,0.00000,,0.12500,3.00000,-2.87500,0.00000\n"
    )


def test_without_steps_the_result_file_is_its_header() -> None:
    assert results_csv([]).count(b"\n") == 1


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (STEPS[0], "Step 1/3: training loss=2.00"),
        (STEPS[1], "Step 2/3: training loss=1.23, validation loss=1.50"),
        (
            STEPS[2],
            "Step 3/3: training loss=0.00, validation loss=0.10, full validation loss=9.00",
        ),
        (
            StepMetrics(4, 9, 1.0, 1.0, full_valid_loss=0.0),
            "Step 4/9: training loss=1.00, full validation loss=0.00",
        ),
    ],
)
def test_a_step_is_told_as_openai_tells_it(metrics: StepMetrics, expected: str) -> None:
    assert step_message(metrics) == expected


def claimed(database: Database) -> tuple[str, Task]:
    """Return a queued job's id, and its task, which a worker has."""
    job = a_job(status=JobStatus.QUEUED, resolved=Hyperparameters(1, 1, 1.0))
    with database.write() as tx:
        tx.files(OURS).add(a_file())
        tx.jobs(OURS).add(job)
        tx.queue.add(OURS, TaskKind.TRAIN_JOB, job.id)
        task = tx.queue.claim([TaskKind.TRAIN_JOB], 60)
    assert task is not None
    return job.id, task


def test_what_a_run_is_made_with_stands_in_the_jobs_story(
    database: Database, blobs: LocalBlobStore
) -> None:
    job_id, task = claimed(database)
    assert training.begin_run(database, task) is not None
    made_with = MadeWith(
        tunery="0.9",
        torch="2.13.0",
        transformers="5.1",
        tokenizers="0.22",
        python="3.13",
        processor="x86_64 AVX512",
        arithmetic="bfloat16",
        threads=2,
        base_digest="b" * 64,
        start_from_digest=None,
        training_digest="d" * 64,
        validation_digest=None,
        template_digest="e" * 64,
    )
    assert training.record(database, blobs, task, RunStarted(3, 1, made_with))
    event = jobs.list_events(database, OURS, job_id, after=None, limit=1).items[0]
    assert event.message == (
        "Training with tunery 0.9, torch 2.13.0, transformers 5.1, tokenizers 0.22 in bfloat16 on 2"
        " threads; data dddddddddddd, template eeeeeeeeeeee"
    )
    assert (event.kind, event.level) == ("message", "info")
    assert event.data is not None
    assert MadeWith(**event.data) == made_with


def test_a_running_job_says_when_it_will_have_ended(
    database: Database, blobs: LocalBlobStore
) -> None:
    job_id, task = claimed(database)

    def finish() -> int | None:
        found = jobs.get_job(database, OURS, job_id)
        return to_wire_job(found, OURS).estimated_finish

    assert training.begin_run(database, task) is not None
    assert finish() is None
    before = int(time.time())
    assert training.record(database, blobs, task, StepMetrics(1, 3, 2.0, 0.5, seconds_left=90.4))
    assert before + 90 <= (finish() or 0) <= time.time() + 91
    with database.write() as tx:
        jobs.fail_job(tx, OURS, jobs.find_job(tx, OURS, job_id), JobError("x", "y", None))
    assert finish() is None


def begun(database: Database, blobs: LocalBlobStore) -> tuple[str, Task]:
    """Return a job that has come to step 5, with an epoch's end and a snapshot at step 3."""
    job_id, task = claimed(database)
    assert training.begin_run(database, task) is not None
    blobs.put("p/s-3", b"state")
    for step in range(1, 6):
        training.record(database, blobs, task, some_metrics(step))
        if step == 3:
            training.record(database, blobs, task, an_epoch(3))
            training.record(database, blobs, task, Snapshot(3, "p/s-3", "5" * 64))
    return job_id, task


def steps_told(database: Database, job_id: str) -> tuple[list[int], list[int]]:
    """Return the steps of which there are metrics, and those of which there is a checkpoint."""
    with database.read() as tx:
        metrics = [one.step for one in tx.jobs(OURS).metrics(job_id)]
        return metrics, [one.step for one in tx.jobs(OURS).epoch_checkpoints(job_id)]


def test_a_run_that_could_not_take_up_its_snapshot_forgets_what_came_before(
    database: Database, blobs: LocalBlobStore
) -> None:
    job_id, task = begun(database, blobs)
    run = training.begin_run(database, task)
    assert run is not None
    assert run.resume_from == Snapshot(3, "p/s-3", "5" * 64)
    assert steps_told(database, job_id) == ([1, 2, 3], [3])
    assert training.record(database, blobs, task, RunStarted(9, 1))
    assert steps_told(database, job_id) == ([], [])
    with database.read() as tx:
        assert tx.jobs(OURS).snapshot(job_id) is None
    assert list(blobs.keys("p")) == []
    event = jobs.list_events(database, OURS, job_id, after=None, limit=1).items[0]
    assert (event.level, event.message) == (
        "warn",
        "The state that was saved after step 3 is damaged; training goes on from the beginning",
    )


def test_a_run_that_took_up_its_snapshot_keeps_what_came_before(
    database: Database, blobs: LocalBlobStore
) -> None:
    job_id, task = begun(database, blobs)
    training.begin_run(database, task)
    training.record(database, blobs, task, RunStarted(9, 4))
    assert steps_told(database, job_id) == ([1, 2, 3], [3])
    assert list(blobs.keys("p")) == ["p/s-3"]


def test_a_run_that_gets_on_is_not_given_up_for_what_interrupted_it_before(
    database: Database, blobs: LocalBlobStore
) -> None:
    _, task = begun(database, blobs)
    with database.write() as tx:
        tx.queue.put_back(task, 0, failed=True)
        again = tx.queue.claim([TaskKind.TRAIN_JOB], 60)
    assert again is not None
    assert again.failures == 1
    training.record(database, blobs, again, Snapshot(4, "p/s-4"))
    with database.read() as tx:
        assert tx.queue.failures(again) == 0


@pytest.mark.parametrize(("good_step", "kept"), [(None, [3]), (3, [3]), (2, [])])
def test_a_failed_jobs_good_checkpoints_wait_to_be_published(
    database: Database, blobs: LocalBlobStore, good_step: int | None, kept: list[int]
) -> None:
    job_id, task = begun(database, blobs)
    failed = RunFailed("non_finite_loss", "Training diverged.", good_step)
    assert not training.record(database, blobs, task, failed)
    assert jobs.get_job(database, OURS, job_id).status is JobStatus.FAILED
    metrics, checkpoints = steps_told(database, job_id)
    assert (metrics, checkpoints) == ([1, 2, 3, 4, 5], kept)
    with database.write() as tx:
        waiting = tx.queue.claim(list(TaskKind), 60)
    assert (None if waiting is None else waiting.kind) == (
        TaskKind.KEEP_CHECKPOINTS if kept else None
    )


def test_cleaning_up_after_a_cancelled_job_leaves_its_checkpoints_and_nothing_else(
    database: Database, blobs: LocalBlobStore
) -> None:
    job_id, _ = begun(database, blobs)
    prefix = training.job_prefix(OURS, job_id)
    with database.write() as tx:
        tx._connection.execute(
            epoch_checkpoints.update().values(adapter_key=f"{prefix}/attempt-1/checkpoint-3")
        )
    kept = f"{prefix}/attempt-1/checkpoint-3/adapter_model.safetensors"
    others = [f"{prefix}/attempt-1/snapshot-3", f"{prefix}/account/train.csv"]
    for key in (kept, *others):
        blobs.put(key, b"x")
    assert not training.clean_up(database, blobs, OURS, job_id)
    jobs.cancel_job(database, OURS, job_id)
    assert training.clean_up(database, blobs, OURS, job_id)
    assert list(blobs.keys(prefix)) == [kept]
