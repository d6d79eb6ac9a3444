"""Fine-tuning jobs as OpenAI writes them."""

from dataclasses import replace
from typing import Any

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.domain.jobs import (
    Checkpoint,
    Hyperparameters,
    Job,
    JobError,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    StepMetrics,
    TrainingMethod,
    WandbIntegration,
)
from tunery.domain.tenants import Tenant
from tunery.protocol.fine_tuning import CreateFineTuningJobRequest, Integration
from tunery.wire.fine_tuning import (
    from_wire_integrations,
    from_wire_method,
    to_wire_checkpoint,
    to_wire_event,
    to_wire_job,
)


def created(fields: dict[str, Any]) -> CreateFineTuningJobRequest:
    body = {"model": "m", "training_file": "file-1", **fields}
    return CreateFineTuningJobRequest.model_validate(body)


TENANT = Tenant("org-1", "acme", "proj_1")
AUTO = {"n_epochs": "auto", "batch_size": 4, "learning_rate_multiplier": "auto"}
NUMBERS = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 0.5}
JOB = Job(
    id="ftjob-1",
    model="gpt-4o-mini",
    base="small",
    base_digest="d" * 64,
    parent_model=None,
    training_file="file-1",
    validation_file=None,
    suffix="bot",
    seed=42,
    requested=RequestedHyperparameters(batch_size=4),
    resolved=None,
    metadata={"a": "b"},
    status=JobStatus.VALIDATING_FILES,
    error=None,
    trained_tokens=None,
    fine_tuned_model=None,
    result_files=(),
    created_at=10,
    started_at=None,
    finished_at=None,
)
METRICS = StepMetrics(7, 30, 1.5, 0.25, valid_loss=2.0, full_valid_loss=3.0)


def test_a_new_job_is_written_with_every_key_of_openai() -> None:
    assert to_wire_job(JOB, TENANT).model_dump() == {
        "id": "ftjob-1",
        "object": "fine_tuning.job",
        "created_at": 10,
        "error": None,
        "fine_tuned_model": None,
        "finished_at": None,
        "hyperparameters": AUTO,
        "model": "gpt-4o-mini",
        "organization_id": "org-1",
        "result_files": [],
        "status": "validating_files",
        "trained_tokens": None,
        "training_file": "file-1",
        "validation_file": None,
        "integrations": [],
        "seed": 42,
        "estimated_finish": None,
        "method": {"type": "supervised", "supervised": {"hyperparameters": AUTO}},
        "metadata": {"a": "b"},
        "user_provided_suffix": "bot",
    }


@pytest.mark.parametrize(
    ("status", "resolved", "expected"),
    [
        ("validating_files", True, AUTO),
        ("queued", True, AUTO),
        ("running", True, NUMBERS),
        ("succeeded", True, NUMBERS),
        ("cancelled", True, NUMBERS),
        ("failed", True, NUMBERS),
        ("failed", False, AUTO),  # its files were not fit: nothing was resolved
    ],
)
def test_auto_is_echoed_until_the_job_runs(
    status: str, resolved: bool, expected: dict[str, Any]
) -> None:
    numbers = Hyperparameters(3, 4, 0.5) if resolved else None
    job = replace(JOB, status=JobStatus(status), resolved=numbers)
    written = to_wire_job(job, TENANT).model_dump()
    assert written["status"] == status
    assert written["hyperparameters"] == expected
    assert written["method"]["supervised"]["hyperparameters"] == expected


@pytest.mark.parametrize(
    ("status", "started_at", "expected"),
    [
        ("paused", None, AUTO),  # it was queued
        ("paused", 11, NUMBERS),
        ("queued", 11, NUMBERS),  # it was resumed
    ],
)
def test_numbers_that_a_job_ran_with_stay_while_it_is_paused_and_queued_again(
    status: str, started_at: int | None, expected: dict[str, Any]
) -> None:
    job = replace(
        JOB,
        status=JobStatus(status),
        resolved=Hyperparameters(3, 4, 0.5),
        started_at=started_at,
    )
    assert to_wire_job(job, TENANT).model_dump()["hyperparameters"] == expected


def test_integrations_are_echoed() -> None:
    wire = [
        {"type": "wandb", "wandb": {"project": "p", "name": "n", "entity": "e", "tags": ["t"]}},
        {"type": "wandb", "wandb": {"project": "q"}},
    ]
    integrations = from_wire_integrations([Integration.model_validate(one) for one in wire])
    assert integrations == (WandbIntegration("p", "n", "e", ("t",)), WandbIntegration("q"))
    assert from_wire_integrations(None) == ()
    job = replace(JOB, integrations=integrations)
    assert to_wire_job(job, TENANT).model_dump()["integrations"] == [
        {
            "type": "wandb",
            "wandb": {
                "project": "p",
                "name": "n",
                "entity": "e",
                "tags": ["t"],
            },
        },
        {
            "type": "wandb",
            "wandb": {
                "project": "q",
                "name": None,
                "entity": None,
                "tags": [],
            },
        },
    ]


def test_a_finished_job_names_its_model_its_files_and_its_error() -> None:
    job = replace(
        JOB,
        status=JobStatus.FAILED,
        error=JobError("invalid_training_file", "line 1: not JSON", "training_file"),
        fine_tuned_model="ft:x",
        result_files=("file-2",),
        trained_tokens=99,
        started_at=11,
        finished_at=12,
        validation_file="file-3",
    )
    written = to_wire_job(job, TENANT).model_dump()
    assert written["error"] == {
        "code": "invalid_training_file",
        "message": "line 1: not JSON",
        "param": "training_file",
    }
    names = ("fine_tuned_model", "result_files", "trained_tokens", "finished_at", "validation_file")
    assert [written[name] for name in names] == ["ft:x", ["file-2"], 99, 12, "file-3"]


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (None, RequestedHyperparameters("auto", "auto", "auto")),
        ({}, RequestedHyperparameters("auto", "auto", "auto")),
        (
            {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 2},
            RequestedHyperparameters(3, 2, 2.0),
        ),
        ({"learning_rate_multiplier": 0.1}, RequestedHyperparameters("auto", "auto", 0.1)),
    ],
)
def test_hyperparameters_are_read_as_numbers_or_auto(
    wire: dict[str, Any] | None, expected: RequestedHyperparameters
) -> None:
    inner = {"type": "supervised", "supervised": {"hyperparameters": wire}}
    for fields in ({"hyperparameters": wire}, {"method": inner}):
        method, read = from_wire_method(created(fields))
        assert (method, read) == (TrainingMethod.SUPERVISED, expected)
        assert isinstance(read.learning_rate_multiplier, str | float)


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (None, RequestedHyperparameters(beta="auto")),
        ({}, RequestedHyperparameters(beta="auto")),
        ({"hyperparameters": {}}, RequestedHyperparameters(beta="auto")),
        (
            {"hyperparameters": {"n_epochs": 3, "beta": 2}},
            RequestedHyperparameters(n_epochs=3, beta=2.0),
        ),
    ],
)
def test_hyperparameters_of_preferences_have_a_beta(
    wire: dict[str, Any] | None, expected: RequestedHyperparameters
) -> None:
    fields = {"method": {"type": "dpo"} | ({} if wire is None else {"dpo": wire})}
    assert from_wire_method(created(fields)) == (TrainingMethod.DPO, expected)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method.supervised"),
        ({"method": {"type": "dpo"}, "hyperparameters": {}}, "hyperparameters"),
        (
            {
                "method": {"type": "supervised", "supervised": {"hyperparameters": {}}},
                "hyperparameters": {"n_epochs": 2},
            },
            "hyperparameters",
        ),
    ],
)
def test_what_does_not_belong_to_the_method_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_wire_method(created(fields))
    assert caught.value.param == param


@pytest.mark.parametrize("resolved", [False, True])
def test_a_job_that_learns_preferences_shows_its_numbers_under_its_method_only(
    resolved: bool,
) -> None:
    job = replace(
        JOB,
        method=TrainingMethod.DPO,
        status=JobStatus.RUNNING,
        requested=RequestedHyperparameters(beta="auto"),
        resolved=Hyperparameters(3, 4, 0.5, 0.25) if resolved else None,
    )
    numbers = {**NUMBERS, "beta": 0.25} if resolved else dict.fromkeys([*NUMBERS, "beta"], "auto")
    written = to_wire_job(job, TENANT).model_dump()
    assert written["hyperparameters"] is None
    assert written["method"] == {"type": "dpo", "dpo": {"hyperparameters": numbers}}


def test_an_event_is_written_with_its_numbers() -> None:
    entry = LogEntry("ftevent-1", 5, "warn", "metrics", "Step 1", {"step": 1})
    assert to_wire_event(entry).model_dump() == {
        "id": "ftevent-1",
        "object": "fine_tuning.job.event",
        "created_at": 5,
        "level": "warn",
        "message": "Step 1",
        "type": "metrics",
        "data": {"step": 1},
    }


def test_an_event_without_numbers_has_none_to_show() -> None:
    entry = LogEntry("ftevent-1", 5, "info", "message", "Created", None)
    assert to_wire_event(entry).data == {}


def test_a_checkpoint_is_written_with_the_metrics_of_its_step() -> None:
    checkpoint = Checkpoint("ftckpt_1", "ftjob-1", 7, "ft:x:ckpt-step-7", METRICS.told(), 20)
    assert to_wire_checkpoint(checkpoint).model_dump() == {
        "id": "ftckpt_1",
        "object": "fine_tuning.job.checkpoint",
        "created_at": 20,
        "fine_tuned_model_checkpoint": "ft:x:ckpt-step-7",
        "fine_tuning_job_id": "ftjob-1",
        "step_number": 7,
        "metrics": {
            "step": 7,
            "train_loss": 1.5,
            "train_mean_token_accuracy": 0.25,
            "valid_loss": 2.0,
            "full_valid_loss": 3.0,
        },
    }
