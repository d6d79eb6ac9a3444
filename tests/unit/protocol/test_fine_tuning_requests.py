"""What a job may be created with: every field's shape is checked, and what is wrong is named."""

from typing import Any

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.protocol.fine_tuning import CreateFineTuningJobRequest
from tunery.wire.requests import from_wire_value

STRING_CHECK = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.label}}",
    "operation": "eq",
}
SIMILAR = {
    "type": "text_similarity",
    "name": "alike",
    "input": "a",
    "reference": "b",
    "evaluation_metric": "rouge_l",
}
PYTHON = {"type": "python", "name": "own", "source": "def grade(s, i): return 1.0"}
SCORE = {
    "type": "score_model",
    "name": "judge",
    "model": "gpt-tiny",
    "input": [
        {"role": "user", "content": "Score this."},
        {
            "type": "message",
            "role": "developer",
            "content": [
                "text",
                {"type": "input_text", "text": "t"},
                {"type": "output_text", "text": "t"},
                {"type": "input_image", "image_url": "https://example.com/a.png"},
                {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
            ],
        },
        {"role": "system", "content": {"type": "input_text", "text": "t"}},
    ],
    "range": [0, 5.5],
    "sampling_params": {"max_completions_tokens": 5, "reasoning_effort": "high", "seed": 1},
}
LABEL = {
    "type": "label_model",
    "name": "label",
    "model": "m",
    "input": [],
    "labels": ["a", "b"],
    "passing_labels": ["a"],
}
ONE = {"type": "multi", "name": "all", "graders": SCORE, "calculate_output": "x"}
MANY = {**ONE, "graders": {"a": STRING_CHECK, "b": SIMILAR, "c": LABEL}}


def create(**fields: Any) -> CreateFineTuningJobRequest:
    body = {"model": "m", "training_file": "file-1", **fields}
    return from_wire_value(body, CreateFineTuningJobRequest)


def refused(**fields: Any) -> tuple[str | None, str]:
    """Return which field was refused, and in which words."""
    with pytest.raises(InvalidRequest) as caught:
        create(**fields)
    return caught.value.param, caught.value.message


def reinforcement(grader: Any = STRING_CHECK, **hyperparameters: Any) -> dict[str, Any]:
    inner = {"grader": grader, "hyperparameters": hyperparameters}
    return {"type": "reinforcement", "reinforcement": inner}


@pytest.mark.parametrize(
    "grader", [STRING_CHECK, SIMILAR, PYTHON, SCORE, ONE, MANY], ids=lambda one: str(one["name"])
)
def test_graders_of_every_kind_are_understood(grader: dict[str, Any]) -> None:
    method = create(method=reinforcement(grader)).method
    assert method is not None
    assert method.reinforcement is not None
    assert method.reinforcement.grader.model_dump(exclude_unset=True) == grader


@pytest.mark.parametrize(
    ("grader", "param"),
    [
        ({**STRING_CHECK, "operation": "equals"}, "operation"),
        ({**STRING_CHECK, "extra": 1}, "extra"),
        ({key: value for key, value in SIMILAR.items() if key != "reference"}, "reference"),
        ({**SIMILAR, "evaluation_metric": "rouge_6"}, "evaluation_metric"),
        ({**PYTHON, "source": 1}, "source"),
        ({**PYTHON, "source": "#" * (256 * 1024 + 1)}, "source"),
        ({**SCORE, "range": [1]}, "range"),
        ({**SCORE, "sampling_params": {"max_tokens": 1}}, "sampling_params.max_tokens"),
        ({**SCORE, "sampling_params": {"temperature": "hot"}}, "sampling_params.temperature"),
        ({**SCORE, "input": [{"role": "tool", "content": ""}]}, "input.0.role"),
        (
            {**SCORE, "input": [{"role": "user", "content": [{"type": "x"}]}]},
            "input.0.content.0.type",
        ),
        ({"type": "magic"}, "type"),
        ({}, ""),
        (LABEL, "type"),  # only as a part of a multi grader
        ({**MANY, "graders": {"a": {**PYTHON, "name": 1}}}, "graders.a.name"),
        ({**MANY, "graders": {"a": MANY}}, "graders.a.type"),
        ({**MANY, "graders": {}}, "graders"),
    ],
)
def test_what_is_wrong_with_a_grader_is_named(grader: dict[str, Any], param: str) -> None:
    wanted = f"method.reinforcement.grader.{param}".rstrip(".")
    assert refused(method=reinforcement(grader))[0] == wanted


def test_a_grader_is_needed() -> None:
    method = {"type": "reinforcement", "reinforcement": {}}
    assert refused(method=method)[0] == "method.reinforcement.grader"


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *[(kind, "n_epochs", v) for kind in ("supervised", "dpo") for v in (0, 51, 1.5, "all")],
        *[("supervised", "batch_size", v) for v in (0, 257, True)],
        *[("supervised", "learning_rate_multiplier", v) for v in (0, -1, "high")],
        *[("dpo", "beta", v) for v in (0, 2.1, "much")],
        ("supervised", "beta", 1),
        ("dpo", "eval_samples", 1),
        ("reinforcement", "n_epochs", 51),
        ("reinforcement", "compute_multiplier", 0.00001),
        ("reinforcement", "compute_multiplier", 10.5),
        ("reinforcement", "eval_interval", 0),
        ("reinforcement", "eval_samples", 0),
        ("reinforcement", "reasoning_effort", "extreme"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(kind: str, name: str, value: Any) -> None:
    if kind == "reinforcement":
        method = reinforcement(**{name: value})
    else:
        method = {"type": kind, kind: {"hyperparameters": {name: value}}}
    assert refused(method=method)[0] == f"method.{kind}.hyperparameters.{name}"
    if kind == "supervised":
        assert refused(hyperparameters={name: value})[0] == f"hyperparameters.{name}"


@pytest.mark.parametrize(
    ("kind", "hyperparameters"),
    [
        ("supervised", {"n_epochs": 50, "batch_size": 256, "learning_rate_multiplier": 0.1}),
        ("supervised", dict.fromkeys(("n_epochs", "batch_size"), "auto")),
        ("dpo", {"beta": 2, "n_epochs": 1}),
        ("dpo", {"beta": "auto"}),
        (
            "reinforcement",
            {
                "compute_multiplier": 10,
                "eval_interval": 1,
                "eval_samples": "auto",
                "reasoning_effort": "low",
            },
        ),
    ],
)
def test_hyperparameters_in_range_are_taken(kind: str, hyperparameters: dict[str, Any]) -> None:
    if kind == "reinforcement":
        method = reinforcement(**hyperparameters)
    else:
        method = {"type": kind, kind: {"hyperparameters": hyperparameters}}
    created = create(method=method).method
    assert created is not None
    assert getattr(created, kind).hyperparameters.model_dump(exclude_unset=True) == hyperparameters


def wandb(**fields: Any) -> list[dict[str, Any]]:
    return [{"type": "wandb", "wandb": {"project": "p", **fields}}]


@pytest.mark.parametrize(
    ("integrations", "param"),
    [
        ([{"type": "clearml"}], "integrations.0.type"),
        ([{"type": "wandb"}], "integrations.0.wandb"),
        ([{"type": "wandb", "wandb": {}}], "integrations.0.wandb.project"),
        (wandb(project=""), "integrations.0.wandb.project"),
        (wandb(project="a/b"), "integrations.0.wandb.project"),
        (wandb(project="a\nb"), "integrations.0.wandb.project"),
        (wandb(project="x" * 129), "integrations.0.wandb.project"),
        (wandb(entity="a/b"), "integrations.0.wandb.entity"),
        (wandb(name=1), "integrations.0.wandb.name"),
        (wandb(tags="a"), "integrations.0.wandb.tags"),
        (wandb(tags=["x" * 65]), "integrations.0.wandb.tags.0"),
        (wandb(tags=[""]), "integrations.0.wandb.tags.0"),
        (wandb(api_key="k"), "integrations.0.wandb.api_key"),
        (wandb() * 6, "integrations"),
        ({}, "integrations"),
    ],
)
def test_what_is_wrong_with_an_integration_is_named(integrations: Any, param: str) -> None:
    assert refused(integrations=integrations)[0] == param


@pytest.mark.parametrize("integrations", [None, [], wandb(name=None, entity=None), wandb() * 5])
def test_up_to_five_integrations_are_taken(integrations: Any) -> None:
    taken = create(integrations=integrations).integrations
    assert (taken is None) == (integrations is None)
    assert len(taken or ()) == len(integrations or ())
