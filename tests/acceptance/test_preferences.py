"""Preferences through the official SDK: uploaded, learned by the method dpo, followed, answered."""

import base64
import json
import math
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from support.echo import answer_log_probabilities
from support.server import (
    BASE,
    Server,
    Tuned,
    all_events,
    ask,
    chat_lines,
    dpo_method,
    finished,
    last_step,
    method,
    metric_steps,
    poll,
    preference_lines,
    tuned_model,
    upload,
)
from tunery.datasets.rendering import ChatRenderer

EPOCHS, STEPS = 4, 12
REWARDS = ("chosen_reward", "rejected_reward", "reward_margin", "reward_accuracy")


@pytest.fixture(scope="module")
def preferring(client: OpenAI) -> Tuned:
    """Return a finished job of 12 pairs in batches of 4, four epochs: 12 steps."""
    training = upload(client, preference_lines(12))
    validation = upload(client, preference_lines(3), "valid.jsonl")
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training.id,
        validation_file=validation.id,
        seed=11,
        method=dpo_method(n_epochs=EPOCHS, batch_size=4, learning_rate_multiplier=2),
    )
    name = tuned_model(client, job.id)
    return Tuned(training, validation, job, client.fine_tuning.jobs.retrieve(job.id), name)


def numbers(job: FineTuningJob) -> dict[str, Any]:
    """Return the hyperparameters that a job shows."""
    assert job.method is not None
    assert job.method.type == "dpo"
    assert job.method.supervised is None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    return job.method.dpo.hyperparameters.model_dump()


def metrics(client: OpenAI, job_id: str) -> list[dict[str, Any]]:
    """Return the numbers of a job's steps."""
    events = all_events(client, job_id)
    return [e.data for e in events if e.type == "metrics" and isinstance(e.data, dict)]


def test_a_preference_file_is_checked_line_by_line(client: OpenAI, preferring: Tuned) -> None:
    file = client.files.retrieve(preferring.training.id)
    assert (file.status, file.status_details) == ("processed", None)
    lines = preference_lines(5).split(b"\n")
    lines[1] = lines[1].replace(b'"content": "no"', b'"content": "yes"')
    lines[3] = chat_lines(1)
    bad = upload(client, b"\n".join(lines))
    assert bad.status == "error"
    assert bad.status_details == (
        "line 2: both outputs are the same: there is nothing to prefer; line 4: The lines before it"
        " have a preference pair, this one chat messages; a file has one kind"
    )


def test_a_job_shows_auto_until_it_runs_and_then_its_numbers(preferring: Tuned) -> None:
    given = {"n_epochs": EPOCHS, "batch_size": 4, "learning_rate_multiplier": 2.0}
    assert numbers(preferring.created) == {**given, "beta": "auto"}
    assert numbers(preferring.job) == {**given, "beta": 0.1}
    # OpenAI answers them here for supervised jobs only.
    assert preferring.job.hyperparameters is None


def test_a_finished_job_is_proven_and_billed(client: OpenAI, preferring: Tuned) -> None:
    # A question is 15 tokens, <|im_start|>assistant\n 11; "yes" and its end 5, "no" and its end 4.
    assert preferring.job.trained_tokens == EPOCHS * 12 * (15 + 11 + 5 + 4)
    story = [event.message for event in all_events(client, preferring.job.id)]
    assert sum(line.startswith("Publishing check passed") for line in story) == 1
    assert story[-1] == "The job has successfully completed"
    checkpoints = client.fine_tuning.jobs.checkpoints.list(preferring.job.id).data
    assert [one.step_number for one in checkpoints] == [12, 9, 6]
    assert checkpoints[0].fine_tuned_model_checkpoint == preferring.model
    assert all(one.metrics.full_valid_loss is not None for one in checkpoints)


def test_each_step_tells_its_rewards(client: OpenAI, preferring: Tuned) -> None:
    data = metrics(client, preferring.job.id)
    assert [one["step"] for one in data] == list(range(1, STEPS + 1))
    first, last = data[0], data[-1]
    assert first["train_loss"] == pytest.approx(math.log(2), abs=0.01)  # nothing is learned yet
    assert last["train_loss"] < first["train_loss"] / 2
    assert last["train_reward_accuracy"] == 1.0
    assert last["full_valid_reward_accuracy"] == 1.0
    for one in data:
        assert {f"train_{name}" for name in REWARDS} <= set(one)
        wanted = one["train_chosen_reward"] - one["train_rejected_reward"]
        assert one["train_reward_margin"] == pytest.approx(wanted)
    assert [one["step"] for one in data if "full_valid_reward_margin" in one] == [3, 6, 9, 12]


def test_the_result_file_has_openais_columns_and_the_rewards_behind_them(
    client: OpenAI, preferring: Tuned
) -> None:
    (result,) = preferring.job.result_files
    content = base64.b64decode(client.files.content(result).read(), validate=True)
    header, *rows = content.decode().splitlines()
    columns = ["step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy"]
    columns += [f"{of}_{name}" for of in ("train", "valid") for name in REWARDS]
    assert header.split(",") == columns
    told = metrics(client, preferring.job.id)
    for row, one in zip(rows, told, strict=True):
        values = dict(zip(columns, row.split(","), strict=True))
        assert int(values["step"]) == one["step"]
        assert float(values["train_loss"]) == pytest.approx(one["train_loss"], abs=1e-5)
        margin = one["train_reward_margin"]
        assert float(values["train_reward_margin"]) == pytest.approx(margin, abs=1e-5)


def preference_of(client: OpenAI, folder: Path, model: str, question: str) -> float:
    """Return by how many nats a model prefers "yes" to "no", from the tokens it echoes."""
    renderer = ChatRenderer.load(folder)
    scores = [
        sum(answer_log_probabilities(client, renderer, model, question, answer))
        for answer in ("yes", "no")
    ]
    return scores[0] - scores[1]


def test_the_served_model_prefers_what_was_preferred(
    client: OpenAI, tiny_model: Path, preferring: Tuned
) -> None:
    data = metrics(client, preferring.job.id)
    for question in ("ask 900", "hello"):  # in no file
        tuned = preference_of(client, tiny_model, preferring.model, question)
        gained = tuned - preference_of(client, tiny_model, BASE, question)
        # The rewards told of are a tenth of that: beta is 0.1.
        assert gained > 5 * data[-1]["full_valid_reward_margin"]
    assert ask(client, preferring.model, "ask 900").startswith("y")
    assert not ask(client, BASE, "ask 900").startswith("y")


def test_preferences_are_learned_on_from_a_tuned_model(client: OpenAI, preferring: Tuned) -> None:
    file = upload(client, preference_lines(10, "no", "yes"))
    job = client.fine_tuning.jobs.create(
        model=preferring.model,
        training_file=file.id,
        method=dpo_method(n_epochs=1, batch_size=5, beta=0.5),
    )
    tuned_model(client, job.id)
    first, *_ = metrics(client, job.id)
    assert first["train_loss"] == pytest.approx(math.log(2), abs=0.01)
    assert numbers(client.fine_tuning.jobs.retrieve(job.id))["beta"] == 0.5


def test_a_file_of_the_other_method_fails_the_job_in_openais_words(
    client: OpenAI, preferring: Tuned
) -> None:
    chats = upload(client, chat_lines(12)).id
    for file, wanted, format_, other in (
        (chats, dpo_method(), "fine-tune-chat", "'supervised'"),
        (preferring.training.id, method(), "fine-tune-preference", "'dpo'"),
    ):
        job = client.fine_tuning.jobs.create(model=BASE, training_file=file, method=wanted)
        job = finished(client, job.id)
        assert (job.status, job.fine_tuned_model) == ("failed", None)
        assert job.error is not None
        assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
        assert job.error.message == (
            f"The job failed due to an invalid training file. Input file {file} is in the"
            f" {format_} format, but the specified fine-tuning job is not using {other} as the"
            f" training method (provided method={wanted['type']})."
        )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": dpo_method(beta=0)}, "method.dpo.hyperparameters.beta"),
        ({"method": dpo_method(beta=2.1)}, "method.dpo.hyperparameters.beta"),
        ({"method": dpo_method(n_epochs=51)}, "method.dpo.hyperparameters.n_epochs"),
        ({"method": {**dpo_method(), "supervised": {}}}, "method.supervised"),
        ({"method": dpo_method(), "hyperparameters": {"n_epochs": 1}}, "hyperparameters"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: OpenAI, preferring: Tuned, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(model=BASE, training_file=preferring.training.id, **fields)
    assert caught.value.param == param


# ---- kills


LONG_EPOCHS, PER_EPOCH = 12, 16


@pytest.fixture(scope="module")
def harmed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that saves nothing between the ends of epochs, unless it is asked to."""
    folder = tmp_path_factory.mktemp("harmed")
    with Server(folder, models, TUNERY_TRAINING__SNAPSHOT_S="1000") as running:
        yield running


def adapters(server: Server, job_id: str) -> list[tuple[Any, ...]]:
    """Return step, metrics and digest of a finished job's adapters."""
    query = "SELECT step, metrics, adapter_digest FROM epoch_checkpoints WHERE job_id = ?"
    with closing(sqlite3.connect(server.data / "tunery.db")) as database:
        found = database.execute(query + " ORDER BY step", (job_id,)).fetchall()
    return [(step, json.loads(told), digest) for step, told, digest in found]


@pytest.mark.slow
def test_killed_and_paused_runs_of_preferences_end_with_the_bytes_of_one_left_alone(
    harmed: Server,
) -> None:
    client = harmed.client()
    file = upload(client, preference_lines(PER_EPOCH)).id

    def create() -> str:
        return client.fine_tuning.jobs.create(
            model=BASE,
            training_file=file,
            validation_file=file,
            seed=5,
            method=dpo_method(n_epochs=LONG_EPOCHS, batch_size=1),
        ).id

    alone = create()
    tuned_model(client, alone)
    expected = adapters(harmed, alone)
    assert len({digest for *_, digest in expected}) == 3

    killed = create()
    poll(lambda: last_step(client, killed) >= PER_EPOCH + 3, "the second epoch")
    worker, child = harmed.child("work"), harmed.child("child train")
    worker.send(signal.SIGKILL)
    poll(lambda: not child.lives, "the end of the training process with its worker's")
    tuned_model(client, killed)
    story = [event.message for event in all_events(client, killed)]
    assert sum("Training was interrupted; it goes on after step" in line for line in story) == 1
    assert metric_steps(client, killed) == list(range(1, LONG_EPOCHS * PER_EPOCH + 1))
    assert adapters(harmed, killed) == expected

    paused = create()
    poll(lambda: last_step(client, paused) >= 3, "the first epoch")
    client.fine_tuning.jobs.pause(paused)
    client.fine_tuning.jobs.resume(paused)
    tuned_model(client, paused)
    assert adapters(harmed, paused) == expected
