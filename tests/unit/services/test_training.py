"""What a run and its steps say, and the result file."""

import csv
import io
import time

import pytest

from support.rows import OURS, a_file, a_job
from tunery.domain.jobs import Hyperparameters, JobError, JobStatus, StepMetrics
from tunery.domain.ports.training import MadeWith, RunStarted
from tunery.domain.tasks import Task, TaskKind
from tunery.services import jobs, training
from tunery.services.training import results_csv, step_message
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
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
