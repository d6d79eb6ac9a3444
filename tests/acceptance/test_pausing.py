"""Jobs are paused and resumed by the official SDK; what is learned is the same."""

import hashlib
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from support.server import (
    BASE,
    Server,
    all_events,
    chat_lines,
    last_step,
    method,
    metric_steps,
    poll,
    tuned_model,
    upload,
)

pytestmark = pytest.mark.slow

EXAMPLES, EPOCHS = 16, 24
STEPS = EXAMPLES * EPOCHS
PUBLISHED = 3  # checkpoints of a job, its last ones


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that saves nothing between the ends of epochs, unless it is asked to."""
    folder = tmp_path_factory.mktemp("paused")
    with Server(folder, models, TUNERY_TRAINING__SNAPSHOT_S="1000") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def training_file(client: OpenAI) -> str:
    return upload(client, chat_lines(EXAMPLES)).id


@pytest.fixture(scope="module")
def digests(server: Server, client: OpenAI, training_file: str) -> list[tuple[Any, ...]]:
    """Return step and digest of the adapters of a run that was left alone."""
    job = create(client, training_file)
    tuned_model(client, job.id)
    return adapters(server, job.id)


def create(client: OpenAI, training_file: str) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training_file,
        seed=5,
        method=method(n_epochs=EPOCHS, batch_size=1),
    )


def running_job(client: OpenAI, training_file: str, step: int) -> str:
    """Return a job that has come to `step`."""
    job = create(client, training_file)
    poll(lambda: last_step(client, job.id) >= step, f"step {step}")
    return job.id


def status(client: OpenAI, job_id: str) -> str:
    return client.fine_tuning.jobs.retrieve(job_id).status


def adapters(server: Server, job_id: str) -> list[tuple[Any, ...]]:
    """Return step and digest of a finished job's adapters."""
    return rows(
        server,
        "SELECT step, adapter_digest FROM epoch_checkpoints WHERE job_id = ? ORDER BY step",
        job_id,
    )


def tasks(server: Server, job_id: str) -> list[tuple[Any, ...]]:
    """Return kind and state of a job's tasks."""
    return rows(server, "SELECT kind, state FROM tasks WHERE subject = ?", job_id)


def rows(server: Server, query: str, job_id: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(server.data / "tunery.db")
    try:
        return database.execute(query, (job_id,)).fetchall()
    finally:
        database.close()


def refusal(client: OpenAI, act: str, job_id: str) -> tuple[str, str | None]:
    with pytest.raises(openai.BadRequestError) as caught:
        getattr(client.fine_tuning.jobs, act)(job_id)
    return caught.value.message, caught.value.code


def test_a_paused_run_ends_frees_the_machine_and_goes_on_to_the_same_bytes(
    server: Server, client: OpenAI, training_file: str, digests: list[tuple[Any, ...]]
) -> None:
    job_id = running_job(client, training_file, EXAMPLES + 3)  # in the midst of an epoch
    child = server.child("child train")
    paused = client.fine_tuning.jobs.pause(job_id)
    assert paused.id == job_id
    assert str(paused.status) == "paused"  # OpenAI's enum does not name it
    assert paused.finished_at is None
    assert paused.hyperparameters.n_epochs == EPOCHS
    poll(lambda: not child.lives, "the end of the paused job's process")
    stopped = last_step(client, job_id)
    assert stopped < STEPS
    message, code = refusal(client, "pause", job_id)
    assert f"Job {job_id} cannot be paused: it is paused already." in message
    assert code == "job_not_pausable"
    with pytest.raises(openai.ConflictError):
        client.files.delete(training_file)

    other = create(client, training_file)  # the machine is free for it
    poll(lambda: last_step(client, other.id) > 0, "another job in training")
    client.fine_tuning.jobs.cancel(other.id)
    assert (status(client, job_id), last_step(client, job_id)) == ("paused", stopped)

    assert client.fine_tuning.jobs.resume(job_id).status == "queued"
    tuned_model(client, job_id)
    assert metric_steps(client, job_id) == list(range(1, STEPS + 1))
    assert adapters(server, job_id) == digests
    story = [event.message for event in all_events(client, job_id)]
    told = [line for line in story if line.startswith(("The job was", "Training goes"))]
    assert told == [
        "The job was paused",
        "The job was resumed",
        f"Training goes on after step {stopped}",  # each of its steps was kept
    ]
    assert not [line for line in story if "interrupted" in line]
    made = [e.data for e in all_events(client, job_id) if e.message.startswith("Training with ")]
    assert len(made) == 2
    assert made[0] == made[1]  # as it began, and as it went on
    assert isinstance(made[0], dict)
    assert made[0]["training_digest"] == hashlib.sha256(chat_lines(EXAMPLES)).hexdigest()
    assert made[0]["threads"] == 1
    assert {"torch", "transformers", "tokenizers", "template_digest"} <= set(made[0])
    assert "cannot be paused: it has already succeeded." in refusal(client, "pause", job_id)[0]
    message, code = refusal(client, "resume", job_id)
    assert "cannot be resumed: it has already succeeded." in message
    assert code == "job_not_resumable"


def test_a_worker_that_is_killed_while_a_job_is_paused_takes_nothing_with_it(
    server: Server, client: OpenAI, training_file: str, digests: list[tuple[Any, ...]]
) -> None:
    job_id = running_job(client, training_file, EXAMPLES + 3)
    worker, child = server.child("work"), server.child("child train")
    server.freeze(worker)  # it does not hear of the pause
    try:
        assert str(client.fine_tuning.jobs.pause(job_id).status) == "paused"
    finally:
        worker.send(signal.SIGKILL)
    poll(lambda: not child.lives, "the end of the training process with its worker's")
    poll(lambda: server.child("work").pid != worker.pid, "a new worker")
    assert tasks(server, job_id) == [("train_job", "paused")]
    assert status(client, job_id) == "paused"
    client.fine_tuning.jobs.resume(job_id)
    tuned_model(client, job_id)
    assert metric_steps(client, job_id) == list(range(1, STEPS + 1))
    assert adapters(server, job_id) == digests


def test_pauses_and_resumptions_in_quick_turns_lose_nothing(
    server: Server, client: OpenAI, training_file: str, digests: list[tuple[Any, ...]]
) -> None:
    job_id = running_job(client, training_file, 3)
    for turn in range(6):
        if turn % 2:
            before = last_step(client, job_id)
            poll(lambda: last_step(client, job_id) > before, "a step more")  # noqa: B023 - called now
        client.fine_tuning.jobs.pause(job_id)
        client.fine_tuning.jobs.resume(job_id)
    tuned_model(client, job_id)
    assert metric_steps(client, job_id) == list(range(1, STEPS + 1))
    assert adapters(server, job_id) == digests
    assert tasks(server, job_id) == []


def test_a_paused_job_can_be_cancelled_and_leaves_its_checkpoints_and_no_other_files(
    server: Server, client: OpenAI, training_file: str
) -> None:
    job_id = running_job(client, training_file, EXAMPLES + 3)
    child = server.child("child train")
    client.fine_tuning.jobs.pause(job_id)
    poll(lambda: not child.lives, "the end of the paused job's process")
    given_back = "SELECT kind, state FROM tasks WHERE subject = ? AND lease_until IS NULL"
    poll(lambda: rows(server, given_back, job_id), "the worker giving the task back")
    folder = server.data / "blobs"
    files = [path for path in folder.rglob(f"*{job_id}*/**/*") if path.is_file()]
    assert [path for path in files if path.name.startswith("snapshot-")]
    # Epochs that have ended, by their last step.
    ended = range(EXAMPLES, last_step(client, job_id) + 1, EXAMPLES)
    assert ended
    assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"
    left = {path.parent.name for path in folder.rglob(f"*{job_id}*/**/*") if path.is_file()}
    assert left == {f"checkpoint-{step}" for step in ended}
    poll(lambda: not tasks(server, job_id), "the publishing of its checkpoints")
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job_id).data
    assert [one.step_number for one in checkpoints] == [*ended][::-1][:PUBLISHED]
    known = {model.id for model in client.models.list()}
    assert {one.fine_tuned_model_checkpoint for one in checkpoints} <= known
    assert refusal(client, "resume", job_id)[1] == "job_not_resumable"


@pytest.mark.parametrize("act", ["pause", "resume"])
def test_an_unknown_job_is_not_found(client: OpenAI, act: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        getattr(client.fine_tuning.jobs, act)("ftjob-unknown")
    assert (caught.value.param, caught.value.code) == ("fine_tune_id", "fine_tune_not_found")
