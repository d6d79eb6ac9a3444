"""Processes are killed, stopped and left alone at bad moments; nothing acknowledged is lost.

The tests share one server and run in this order: each leaves it in working order.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from support.server import (
    BASE,
    CONTEXT,
    Server,
    all_events,
    ask,
    chat_lines,
    last_step,
    method,
    metric_steps,
    poll,
    tuned_model,
    upload,
)

pytestmark = pytest.mark.slow

LONG = CONTEXT - 100
EXAMPLES, EPOCHS = 16, 24
STEPS = EXAMPLES * EPOCHS


@pytest.fixture(scope="module")
def harmed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("harmed"), models) as running:
        yield running


@pytest.fixture(scope="module")
def training_file(harmed: Server) -> str:
    return upload(harmed.client(), chat_lines(EXAMPLES)).id


def long_job(client: OpenAI, training_file: str, step: int) -> FineTuningJob:
    """Return a running job of STEPS steps that has come to `step`, and not much further."""
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=training_file, method=method(n_epochs=EPOCHS, batch_size=1)
    )
    poll(lambda: last_step(client, job.id) >= step, f"step {step}")
    return job


def assert_whole(client: OpenAI, job_id: str) -> str:
    """Wait for the job to succeed, each step told once; return its model."""
    name = tuned_model(client, job_id)
    assert metric_steps(client, job_id) == list(range(1, STEPS + 1))
    story = [event.message for event in all_events(client, job_id)]
    assert story.count(f"New fine-tuned model created: {name}") == 1
    assert len(client.fine_tuning.jobs.checkpoints.list(job_id).data) == 3
    made = [m for m in client.models.list() if m.model_dump()["tunery"]["job_id"] == job_id]
    assert len(made) == 3
    assert ask(client, name) == "yes"
    return name


def interruptions(client: OpenAI, job_id: str) -> list[str]:
    """Return what the job's story says of interruptions."""
    return [e.message for e in all_events(client, job_id) if "was interrupted" in e.message]


@pytest.fixture(scope="module")
def survivor(harmed: Server, training_file: str) -> str:
    """Return the model of a job whose worker is killed in mid-run."""
    client = harmed.client()
    job = long_job(client, training_file, 3 * EXAMPLES)
    worker, child = harmed.child("work"), harmed.child("child train")
    worker.send(signal.SIGKILL)
    poll(lambda: not child.lives, "the end of the training process with its worker's")
    name = assert_whole(client, job.id)
    (story,) = interruptions(client, job.id)
    assert story.startswith("Training was interrupted; it goes on after step ")
    # It had come to the end of the third epoch: that snapshot, or a later one, is taken up.
    assert int(story.rpartition(" ")[2]) >= 2 * EXAMPLES
    return name


def test_a_killed_workers_job_goes_on_from_its_snapshot_and_tells_each_step_once(
    harmed: Server, survivor: str
) -> None:
    assert ask(harmed.client(), survivor) == "yes"
    assert "The worker was killed by SIGKILL; starting it again" in harmed.log


def test_a_cancelled_job_is_so_at_once_and_keeps_the_checkpoints_it_has_made(
    harmed: Server, training_file: str
) -> None:
    client = harmed.client()
    job = long_job(client, training_file, 2 * EXAMPLES)
    child = harmed.child("child train")
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    poll(lambda: not child.lives, "the end of the cancelled job's process", 5)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert (job.status, job.fine_tuned_model) == ("cancelled", None)
    assert job.finished_at is not None
    assert last_step(client, job.id) < STEPS
    kept = poll(
        lambda: client.fine_tuning.jobs.checkpoints.list(job.id).data, "the checkpoints it has made"
    )
    steps = [checkpoint.step_number for checkpoint in kept]
    assert 1 <= len(steps) <= 3
    assert all(step % EXAMPLES == 0 for step in steps)
    story = [event.message for event in all_events(client, job.id)]
    told = [f"Checkpoint created at step {step} with Snapshot ID: ft:" for step in sorted(steps)]
    assert story[-len(told) - 1] == "The job was cancelled"
    assert all(map(str.startswith, story[-len(told) :], told)), story
    for checkpoint in kept:
        assert checkpoint.fine_tuned_model_checkpoint.endswith(
            f":ckpt-step-{checkpoint.step_number}"
        )
        ask(client, checkpoint.fine_tuned_model_checkpoint)
    folder = harmed.data / "blobs"
    poll(
        lambda: (
            len({path.parent for path in folder.rglob(f"*{job.id}*/**/*") if path.is_file()})
            == len(kept)
        ),
        "the removal of what else the cancelled job left behind",
    )
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.cancel(job.id)
    assert caught.value.code == "job_not_cancellable"


def test_a_killed_engine_ends_a_stream_with_an_error_and_comes_back(
    harmed: Server, survivor: str
) -> None:
    engine = harmed.child("engine")
    body = {
        "model": BASE,
        "messages": [{"role": "user", "content": "ask 001"}],
        "max_tokens": LONG,
        "temperature": 0,
        "stream": True,
    }
    lines: list[str] = []
    with harmed.http().stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line:
                lines.append(line)
            if len(lines) == 3:
                engine.send(signal.SIGKILL)
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "engine_error"
    assert "data: [DONE]" not in lines
    assert not any('"finish_reason":"' in line for line in lines)

    harmed.wait_until_ready()
    assert ask(harmed.client(), survivor) == "yes"
    assert harmed.child("engine").pid != engine.pid


def test_a_worker_that_sleeps_past_its_lease_changes_nothing_when_it_wakes(
    harmed: Server, training_file: str, tmp_path: Path
) -> None:
    client = harmed.client()
    job = long_job(client, training_file, EXAMPLES)
    sleeper, child = harmed.child("work"), harmed.child("child train")
    before = harmed.log.count("task given up")
    harmed.freeze(sleeper)
    command = [sys.executable, "-m", "tunery", "work", "--data", str(harmed.data)]
    environment = {**harmed.settings, "TUNERY_BASE": "tiny"}
    with (tmp_path / "work.log").open("wb") as log:
        second = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        poll(lambda: interruptions(client, job.id), "the second worker taking over")
        sleeper.send(signal.SIGCONT)
        poll(lambda: harmed.log.count("task given up") > before, "the first worker giving up")
        poll(lambda: not child.lives, "the end of the first worker's process")
        assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
        assert_whole(client, job.id)
        assert len(interruptions(client, job.id)) == 1
    finally:
        sleeper.send(signal.SIGCONT)
        second.terminate()
        assert second.wait(30) == 0


def test_a_killed_supervisor_takes_all_with_it_and_what_was_acknowledged_is_there(
    harmed: Server, training_file: str, survivor: str
) -> None:
    client = harmed.client()
    key = harmed.env["OPENAI_API_KEY"]
    job = long_job(client, training_file, EXAMPLES)
    last = client.files.create(file=("last.jsonl", chat_lines(10)), purpose="fine-tune")
    left = harmed.kill()
    assert len(left) >= 4  # API, engine, worker, training
    poll(lambda: not [process for process in left if process.lives], "the end of every process")

    harmed.start()
    client = harmed.client()
    assert harmed.env["OPENAI_API_KEY"] == key
    assert ask(client, survivor) == "yes"
    assert client.files.content(last.id).read() == chat_lines(10)
    assert client.files.wait_for_processing(last.id, poll_interval=0.1).status == "processed"
    assert_whole(client, job.id)
    assert len(interruptions(client, job.id)) == 1


def test_a_client_that_goes_away_in_mid_stream_frees_its_row(server: Server) -> None:
    received = 0
    done = threading.Event()
    request: dict[str, Any] = {
        "model": BASE,
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "max_tokens": LONG,
        "stream": True,
    }
    poll(lambda: server.engine_rows() == 0, "an idle engine")
    staying = server.client().chat.completions.create(**request)
    next(staying)
    leaving = server.client().chat.completions.create(**request)
    next(leaving)

    def read() -> None:
        nonlocal received
        for _ in staying:
            received += 1
            if done.is_set():
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        poll(lambda: server.engine_rows() == 2, "both answers in the making")
        leaving.close()
        poll(lambda: server.engine_rows() == 1, "the row of the client that left")
        # Of equal length and begun later, it would not have come to its own end before the other.
        assert received < LONG * 3 // 4
    finally:
        done.set()
        reader.join()
        staying.close()
    poll(lambda: server.engine_rows() == 0, "an idle engine")
