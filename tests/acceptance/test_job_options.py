"""What a job may be created with and found by, through the official SDK."""

import openai
import pytest
from openai import OpenAI

from support.rows import wait_for
from support.server import (
    BASE,
    Server,
    Tuned,
    all_events,
    chat_lines,
    method,
    metric_steps,
    tuned_model,
    upload,
)
from support.wandb_folder import offline_runs
from tunery.domain.jobs import StepMetrics


def test_jobs_are_found_by_their_metadata(client: OpenAI, tuned: Tuned) -> None:
    made = [
        client.fine_tuning.jobs.create(
            model=BASE,
            training_file=tuned.training.id,
            metadata=metadata,
        ).id
        for metadata in ({"list": "a", "n": "1"}, {"list": "a", "n": "2"}, {"list": "b"}, None)
    ]
    for job_id in made:
        client.fine_tuning.jobs.cancel(job_id)

    def found(metadata: dict[str, str] | None, limit: int = 20) -> list[str]:
        jobs = client.fine_tuning.jobs.list(metadata=metadata, limit=limit)
        return [job.id for job in jobs]  # every page

    assert found({"list": "a"}) == [made[1], made[0]]
    assert found({"list": "a"}, limit=1) == [made[1], made[0]]
    assert found({"list": "a", "n": "1"}) == [made[0]]
    assert found({"list": "c"}) == []
    assert made[3] in found({})
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.list(metadata={"list": "a"}, after=made[2])


def test_jobs_without_metadata_are_found(server: Server, client: OpenAI, tuned: Tuned) -> None:
    plain = client.fine_tuning.jobs.create(model=BASE, training_file=tuned.training.id).id
    client.fine_tuning.jobs.cancel(plain)
    listed = server.http().get("/v1/fine_tuning/jobs?metadata=null&limit=100").json()["data"]
    ids = {job["id"] for job in listed}
    assert plain in ids
    assert tuned.job.id not in ids
    assert all(not job["metadata"] for job in listed)


def test_hyperparameters_are_taken_at_the_top_level_too_and_echoed_in_both_places(
    client: OpenAI, tuned: Tuned
) -> None:
    wanted = {"n_epochs": 2, "learning_rate_multiplier": 0.5}
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=tuned.training.id,
        hyperparameters=wanted,  # type: ignore[arg-type]
    )
    client.fine_tuning.jobs.cancel(job.id)
    expected = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    assert job.hyperparameters.model_dump() == expected
    supervised = None if job.method is None else job.method.supervised
    assert supervised is not None
    assert supervised.hyperparameters is not None
    assert supervised.hyperparameters.model_dump() == expected


def test_a_job_is_reported_to_weights_and_biases_from_start_to_end(
    server: Server, client: OpenAI
) -> None:
    training = upload(client, chat_lines(12)).id
    validation = upload(client, chat_lines(3), "valid.jsonl").id
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training,
        validation_file=validation,
        seed=3,
        method=method(n_epochs=2, batch_size=4),
        integrations=[{"type": "wandb", "wandb": {"project": "ours", "tags": ["blue"]}}],
    )
    assert job.integrations is not None
    (echoed,) = job.integrations
    assert echoed.type == "wandb"
    assert echoed.wandb.model_dump() == {
        "project": "ours",
        "name": None,
        "entity": None,
        "tags": ["blue"],
    }
    name = tuned_model(client, job.id)
    folder = server.data / "wandb"
    wait_for(
        lambda: any(
            run.exit_code is not None
            and "fine_tuned_model" in run.summary
            and run.summary["status"] == "succeeded"
            for run in offline_runs(folder)
        ),
        "the end of the run",
    )
    parts = [run for run in offline_runs(folder) if run.id == job.id]
    assert {(part.project, part.name) for part in parts} == {("ours", job.id)}
    assert "blue" in parts[0].tags
    config = parts[0].config
    assert (config["model"], config["seed"], config["n_epochs"]) == (BASE, 3, 2)
    assert (config["training_file"], config["validation_file"]) == (training, validation)
    assert parts[-1].summary["fine_tuned_model"] == name

    told = [row for part in parts for row in part.history]
    assert [row["_step"] for row in told] == metric_steps(client, job.id) == [1, 2, 3, 4, 5, 6]
    names = set(StepMetrics.__dataclass_fields__) - {"step", "total_steps"}
    events = [e.data for e in all_events(client, job.id) if e.type == "metrics"]
    for row, event in zip(told, events, strict=True):
        assert isinstance(event, dict)
        assert {k: row[k] for k in names & set(row)} == {k: event[k] for k in names & set(event)}
    assert not [e for e in all_events(client, job.id) if e.level == "warn"]
