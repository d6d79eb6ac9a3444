"""/fine_tuning/jobs."""

from typing import Any

from openai.types.fine_tuning import JobCreateParams, JobListEventsParams, JobListParams
from openai.types.fine_tuning.jobs import CheckpointListParams

from conformance.fields.files import after_first, page_ids, shorter
from conformance.fields.probe import ABSENT, Answer, Endpoint, Honoured, Refused, echoes

LABEL = {"label": "conformance"}
"""What one of the server's jobs, and one of its stored completions, carries as metadata."""


def number(
    name: str, value: Any, wrong: tuple[Any, ...], values: str, *, method: str | None
) -> Honoured:
    """Return the entry of a hyperparameter of a method; None is the deprecated place."""
    if method is None:
        return Honoured(
            value=value, shows=echoes("hyperparameters", name), wrong=wrong, values=values
        )
    return Honoured(
        value=value,
        shows=echoes("method", method, "hyperparameters", name, value=value),
        wrong=wrong,
        beside={"method.type": method},
        values=values,
    )


NUMBERS: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "n_epochs": (2, (0, 51, "many", 1.5), "`auto`, 1 to 50"),
    "batch_size": (3, (0, 257, "big"), "`auto`, 1 to 256"),
    "learning_rate_multiplier": (0.5, (0, -1, "fast"), "`auto`, above 0"),
}

BETA: tuple[Any, tuple[Any, ...], str] = (0.5, (0, 2.1, "much"), "`auto`, above 0 to 2")

WANDB = [{"type": "wandb", "wandb": {"project": "p"}}]
WANDB_FIELDS: dict[str, tuple[Any, Any, tuple[Any, ...], str]] = {
    "project": ("ours", "p", ("", "a/b", "x" * 129), "1 to 128 characters that W&B takes"),
    "name": ("a run", ABSENT, ("", 5), "1 to 128 characters"),
    "entity": ("team", ABSENT, ("", "a/b"), "1 to 128 characters"),
    "tags": (["a"], ABSENT, ([""], ["x" * 65], "a"), "64 tags of 1 to 64 characters"),
}


def labelled(sent: Answer, other: Answer) -> bool:
    """Whether a filter leaves those of a list that carry the label of `LABEL`, and only those."""
    wanted = [one["id"] for one in other.value["data"] if one["metadata"] == LABEL]
    return page_ids(sent) == wanted != page_ids(other)


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/fine_tuning/jobs",
        params=JobCreateParams,
        base={"model": "{base_model}", "training_file": "{file_id}"},
        undo="POST /fine_tuning/jobs/{id}/cancel",
        fields={
            "model": Honoured(
                value="{model}",
                other="{base_model}",
                shows=echoes("model"),
                wrong=("", 5),
                values="the base model under its names, or a tuned model of the project",
            ),
            "training_file": Honoured(
                value="{other_file}",
                other="{file_id}",
                shows=echoes("training_file"),
                wrong=("file-x", 5),
                values="a file of purpose fine-tune",
            ),
            "validation_file": Honoured(
                value="{other_file}",
                shows=echoes("validation_file"),
                wrong=("file-x", 5),
                values="a file of purpose fine-tune",
            ),
            "suffix": Honoured(
                value="mine",
                shows=echoes("user_provided_suffix", value="mine"),
                wrong=("a b", "x" * 65, 5),
                values="1 to 64 letters, digits, `.`, `_` and `-`",
            ),
            "seed": Honoured(
                value=7,
                other=8,
                shows=echoes("seed", value=7),
                wrong=(-1, 2**31, "x"),
                values="0 to 2147483647",
            ),
            "metadata": Honoured(
                value={"k": "v"},
                shows=echoes("metadata", value={"k": "v"}),
                wrong=({"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, "k"),
                values="16 keys of 64 characters, values of 512",
            ),
            "integrations": Honoured(
                value=WANDB,
                shows=lambda sent, other: (
                    len(sent.value["integrations"]) == 1 and other.value["integrations"] == []
                ),
                wrong=(WANDB * 6, {}),
                values="up to five; an operator can switch them off",
            ),
            "integrations[].type": Honoured(
                value="wandb",
                shows=lambda sent, _: sent.value["integrations"][0]["type"] == "wandb",
                other="wandb",
                wrong=("other", None),
                beside={"integrations": WANDB},
                values="`wandb`",
            ),
            **{
                f"integrations[].wandb.{name}": Honoured(
                    value=value,
                    other=other,
                    shows=echoes("integrations", 0, "wandb", name, value=value),
                    wrong=wrong,
                    beside={"integrations": WANDB},
                    values=values,
                )
                for name, (value, other, wrong, values) in WANDB_FIELDS.items()
            },
            "method.type": Honoured(
                value="dpo",
                other="supervised",
                shows=lambda sent, other: (
                    [one.value["method"]["type"] for one in (sent, other)] == ["dpo", "supervised"]
                ),
                wrong=("reinforcement", "magic"),
                values="`supervised`, `dpo`",
            ),
            "method.reinforcement": Refused(
                value={"grader": {}}, beside={"method.type": "supervised"}
            ),
            **{
                f"method.supervised.hyperparameters.{name}": number(
                    name, *entry, method="supervised"
                )
                for name, entry in NUMBERS.items()
            },
            **{
                f"method.dpo.hyperparameters.{name}": number(name, *entry, method="dpo")
                for name, entry in {**NUMBERS, "beta": BETA}.items()
            },
            **{
                f"hyperparameters.{name}": number(name, *entry, method=None)
                for name, entry in NUMBERS.items()
            },
        },
    ),
    Endpoint(
        method="GET",
        path="/fine_tuning/jobs",
        params=JobListParams,
        encoding="query",
        base={"limit": 100},
        fields={
            "after": Honoured(
                value="{newest_job}", shows=after_first, wrong=("ftjob-x",), values="a job's id"
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100"),
            "metadata": Honoured(
                value=LABEL,
                shows=labelled,
                wrong=({"": "v"}, {"k" * 65: "v"}, {"k": "v" * 513}, "k"),
                values="`metadata[k]=v`, or `metadata=null` for jobs without",
            ),
        },
    ),
    Endpoint(method="GET", path="/fine_tuning/jobs/{fine_tuning_job_id}"),
    Endpoint(method="POST", path="/fine_tuning/jobs/{fine_tuning_job_id}/cancel"),
    Endpoint(method="POST", path="/fine_tuning/jobs/{fine_tuning_job_id}/pause"),
    Endpoint(method="POST", path="/fine_tuning/jobs/{fine_tuning_job_id}/resume"),
    Endpoint(
        method="GET",
        path="/fine_tuning/jobs/{fine_tuning_job_id}/events",
        params=JobListEventsParams,
        encoding="query",
        base={"limit": 100},
        fields={
            "after": Honoured(
                value="{newest_event}",
                shows=after_first,
                wrong=("ftevent-x",),
                values="an event's id",
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 1001, "few"), values="1 to 1000"),
        },
    ),
    Endpoint(
        method="GET",
        path="/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
        params=CheckpointListParams,
        encoding="query",
        fields={
            "after": Honoured(
                value="{newest_checkpoint}",
                shows=after_first,
                wrong=("ftckpt_x",),
                values="a checkpoint's id",
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100"),
        },
    ),
)
