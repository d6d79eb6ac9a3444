"""OpenAI's objects as they were seen on its wire become ours; what is missing is no failure."""

from typing import Any

import pytest

from tunery.domain.jobs import (
    Checkpoint,
    Hyperparameters,
    Job,
    JobError,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    TrainingMethod,
    WandbIntegration,
)
from tunery.outgoing.openai_objects import (
    checkpoint_of,
    event_of,
    file_of,
    job_of,
    model_of,
)

THERE = "https://api.openai.com/v1"
# As the live service answers it, with the fields that its document does not name.
JOB: dict[str, Any] = {
    "object": "fine_tuning.job",
    "id": "ftjob-abc123",
    "model": "gpt-4o-mini-2024-07-18",
    "created_at": 1721764800,
    "finished_at": 1721765800,
    "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:acme:support:AbC123xy",
    "organization_id": "org-123",
    "result_files": ["file-r1"],
    "status": "succeeded",
    "validation_file": "file-v1",
    "training_file": "file-t1",
    "hyperparameters": {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8},
    "trained_tokens": 5768,
    "integrations": [
        {"type": "wandb", "wandb": {"project": "p", "entity": None, "run_id": "ftjob-abc123"}}
    ],
    "seed": 683058546,
    "estimated_finish": None,
    "error": {},
    "method": {
        "type": "supervised",
        "supervised": {
            "hyperparameters": {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 1.8}
        },
    },
    "metadata": {"team": "blue"},
    "user_provided_suffix": "support",
    "usage_metrics": None,
    "shared_with_openai": False,
    "eval_id": None,
}


def changed(**changes: Any) -> dict[str, Any]:
    return {key: one for key, one in {**JOB, **changes}.items() if one != "missing"}


def kept(**changes: Any) -> Job:
    found = job_of(changed(**changes), THERE)
    assert found.job is not None, found.problem
    return found.job


def test_a_job_is_kept_as_it_was_there() -> None:
    assert kept() == Job(
        id="ftjob-abc123",
        model="gpt-4o-mini-2024-07-18",
        base="gpt-4o-mini-2024-07-18",
        base_digest="",
        parent_model=None,
        training_file="file-t1",
        validation_file="file-v1",
        suffix="support",
        seed=683058546,
        requested=RequestedHyperparameters(3, 1, 1.8),
        resolved=Hyperparameters(3, 1, 1.8),
        metadata={"team": "blue"},
        status=JobStatus.SUCCEEDED,
        error=None,
        trained_tokens=5768,
        fine_tuned_model="ft:gpt-4o-mini-2024-07-18:acme:support:AbC123xy",
        result_files=("file-r1",),
        created_at=1721764800,
        started_at=None,
        finished_at=1721765800,
        integrations=(WandbIntegration("p"),),
        method=TrainingMethod.SUPERVISED,
        imported_from=THERE,
    )


def test_an_old_job_has_its_hyperparameters_at_the_top_and_no_more() -> None:
    names = ("method", "seed", "integrations", "metadata", "user_provided_suffix", "error")
    job = kept(**dict.fromkeys(names, "missing"), hyperparameters={"n_epochs": 3})
    assert job.requested == RequestedHyperparameters(n_epochs=3)
    assert job.resolved is None  # not all of them are known
    assert (job.seed, job.metadata, job.integrations, job.error) == (0, None, (), None)
    assert job.suffix == "support"  # the fourth part of the model's name


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("ft:gpt-3.5-turbo-0613:acme::AbC123", None),
        ("ft:gpt-3.5-turbo-0613:acme:My_1.0-x:AbC123", "My_1.0-x"),
        ("ft:davinci-002:acme", None),
        (None, None),
    ],
)
def test_a_suffix_is_read_from_the_name(name: str | None, suffix: str | None) -> None:
    job = kept(user_provided_suffix="missing", fine_tuned_model=name)
    assert (job.suffix, job.fine_tuned_model) == (suffix, name)


def test_preferences_keep_their_beta() -> None:
    numbers = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1, "beta": 0.2}
    method = {"type": "dpo", "dpo": {"hyperparameters": numbers}}
    job = kept(method=method, hyperparameters=None)
    assert job.method is TrainingMethod.DPO
    assert job.resolved == Hyperparameters(2, 4, 1.0, 0.2)


@pytest.mark.parametrize(
    ("error", "kept_error"),
    [
        ({}, None),
        (None, None),
        ({"code": None, "message": None, "param": None}, None),
        (
            {"code": "invalid_n_examples", "message": "Too few.", "param": "training_file"},
            JobError("invalid_n_examples", "Too few.", "training_file"),
        ),
        ({"message": "It broke."}, JobError("server_error", "It broke.", None)),
    ],
)
def test_an_error_of_nothing_is_none(error: Any, kept_error: JobError | None) -> None:
    assert kept(error=error).error == kept_error


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": "running"}, "it is running there"),
        ({"status": "missing"}, "it is None there"),
        ({"method": {"type": "reinforcement"}}, "'reinforcement', which tunery does not have"),
        ({"training_file": "../../secret"}, "its training_file"),
        ({"training_file": None}, "its training_file"),
        ({"id": "x" * 41}, "its id"),
        ({"model": None}, "names no model"),
    ],
)
def test_a_job_that_cannot_be_ours_says_why(changes: dict[str, Any], told: str) -> None:
    found = job_of(changed(**changes), THERE)
    assert found.job is None
    assert told in found.problem


def test_a_file_lacks_what_the_service_does_not_say() -> None:
    file = file_of({"id": "file-1", "purpose": "fine-tune"})
    assert (file.filename, file.size_bytes, file.expires_at) == ("file-1", None, None)


@pytest.mark.parametrize("name", ["gpt-4o-mini", "text-embedding-3-small", None])
def test_only_tuned_models_are_models(name: str | None) -> None:
    assert model_of({"id": name, "created": 5}) is None


def test_an_event_is_kept_and_one_without_an_id_always_gets_the_same() -> None:
    event = {
        "object": "fine_tuning.job.event",
        "id": "ftevent-1",
        "created_at": 5,
        "level": "info",
        "message": "Step 1/3: training loss=0.15",
        "data": {"step": 1, "train_loss": 0.15},
        "type": "metrics",
    }
    data = {"step": 1, "train_loss": 0.15}
    message = "Step 1/3: training loss=0.15"
    entry = LogEntry("ftevent-1", 5, "info", "metrics", message, data)
    assert event_of(event, "ftjob-1") == entry
    bare = {"created_at": 5, "message": "Created", "level": "loud", "type": "new", "data": None}
    first, again = event_of(bare, "ftjob-1"), event_of(bare, "ftjob-1")
    assert first == again
    assert (first.level, first.kind, first.data) == ("info", "message", None)
    assert event_of(bare, "ftjob-2").id != first.id


def test_a_checkpoint_has_the_numbers_that_there_are() -> None:
    value = {
        "id": "ftckpt_1",
        "created_at": 5,
        "fine_tuned_model_checkpoint": "ft:x:acme::1:ckpt-step-90",
        "step_number": 90,
        "metrics": {"train_loss": 0.5, "valid_loss": None, "note": "x"},
    }
    metrics = {"step": 90, "train_loss": 0.5}
    wanted = Checkpoint("ftckpt_1", "ftjob-1", 90, "ft:x:acme::1:ckpt-step-90", metrics, 5)
    assert checkpoint_of(value, "ftjob-1") == wanted
    assert checkpoint_of({**value, "step_number": None}, "ftjob-1") is None
