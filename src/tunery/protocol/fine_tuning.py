"""Fine-tuning jobs on the wire."""

from typing import Annotated, Any, Literal

from pydantic import Field, StrictFloat, StrictInt

from tunery.protocol.base import Request, Response
from tunery.protocol.graders import Grader
from tunery.protocol.metadata import Metadata

Auto = Literal["auto"]
Number = StrictFloat | StrictInt
Measured = Annotated[float | None, Field(exclude_if=lambda value: value is None)]


class SupervisedHyperparameters(Request):
    """What may be set for supervised training."""

    n_epochs: Auto | Annotated[StrictInt, Field(ge=1, le=50)] = "auto"
    batch_size: Auto | Annotated[StrictInt, Field(ge=1, le=256)] = "auto"
    learning_rate_multiplier: (
        Auto | Annotated[Number, Field(gt=0, le=1000, allow_inf_nan=False)]
    ) = "auto"


class DpoHyperparameters(SupervisedHyperparameters):
    """What may be set for direct preference optimization."""

    beta: Auto | Annotated[Number, Field(gt=0, le=2, allow_inf_nan=False)] = "auto"


class ReinforcementHyperparameters(SupervisedHyperparameters):
    """What may be set for reinforcement training."""

    compute_multiplier: Auto | Annotated[Number, Field(gt=0.00001, le=10, allow_inf_nan=False)] = (
        "auto"
    )
    eval_interval: Auto | Annotated[StrictInt, Field(ge=1)] = "auto"
    eval_samples: Auto | Annotated[StrictInt, Field(ge=1)] = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] = "default"


class SupervisedMethod(Request):
    """Settings of the supervised method."""

    hyperparameters: SupervisedHyperparameters | None = None


class DpoMethod(Request):
    """Settings of direct preference optimization."""

    hyperparameters: DpoHyperparameters | None = None


class ReinforcementMethod(Request):
    """Settings of reinforcement training."""

    grader: Grader
    hyperparameters: ReinforcementHyperparameters | None = None


class Method(Request):
    """How to train. The reinforcement method is refused by name."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedMethod | None = None
    dpo: DpoMethod | None = None
    reinforcement: ReinforcementMethod | None = None


class WandbSettings(Request):
    """Where a job's metrics go in Weights & Biases, within what that takes as names."""

    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\\#?%:\x00-\x1f]+$")]
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    entity: Annotated[str, Field(min_length=1, max_length=128, pattern="^[^/]+$")] | None = None
    tags: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=64)
    ] = Field(default_factory=list)


class Integration(Request):
    """Where a job's metrics are reported."""

    type: Literal["wandb"]
    wandb: WandbSettings


class CreateFineTuningJobRequest(Request):
    """A job to create."""

    model: str = Field(min_length=1)
    training_file: str = Field(min_length=1)
    validation_file: str | None = Field(None, min_length=1)
    suffix: str | None = None
    seed: Annotated[StrictInt, Field(ge=0, le=2**31 - 1)] | None = None
    method: Method | None = None
    hyperparameters: SupervisedHyperparameters | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None


class JobErrorBody(Response):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class ResolvedHyperparameters(Response):
    """The numbers of a job, "auto" until they are resolved."""

    n_epochs: Auto | int
    batch_size: Auto | int
    learning_rate_multiplier: Auto | float


class ResolvedDpoHyperparameters(ResolvedHyperparameters):
    """The numbers of a job that learns preferences."""

    beta: Auto | float


class SupervisedMethodBody(Response):
    """Settings of the supervised method."""

    hyperparameters: ResolvedHyperparameters


class DpoMethodBody(Response):
    """Settings of direct preference optimization."""

    hyperparameters: ResolvedDpoHyperparameters


class MethodBody(Response):
    """How the job trains: one method, with its settings under its name."""

    type: Literal["supervised", "dpo"]
    supervised: Annotated[
        SupervisedMethodBody | None, Field(exclude_if=lambda value: value is None)
    ] = None
    dpo: Annotated[DpoMethodBody | None, Field(exclude_if=lambda value: value is None)] = None


class WandbBody(Response):
    """Where a job's metrics go, in a run of the job's id."""

    project: str
    name: str | None
    entity: str | None
    tags: list[str]


class IntegrationBody(Response):
    """Where a job's metrics are reported."""

    type: Literal["wandb"] = "wandb"
    wandb: WandbBody


class JobOrigin(Response):
    """What a job has to do with another service: an addition of ours to OpenAI's object."""

    imported_from: str | None
    replaces: str | None


class FineTuningJob(Response):
    """A job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: JobErrorBody | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: ResolvedHyperparameters | None
    model: str
    organization_id: str
    result_files: list[str]
    status: str
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    integrations: list[IntegrationBody] = Field(default_factory=list)
    seed: int
    estimated_finish: int | None = None
    method: MethodBody
    metadata: dict[str, str] | None
    user_provided_suffix: str | None
    tunery: Annotated[JobOrigin | None, Field(exclude_if=lambda value: value is None)] = None


class FineTuningJobEvent(Response):
    """A line of a job's story."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    data: dict[str, Any]


class CheckpointMetrics(Response):
    """The numbers of a checkpoint's step; those that were not measured are left out."""

    step: float
    train_loss: Measured = None
    train_mean_token_accuracy: Measured = None
    valid_loss: Measured = None
    valid_mean_token_accuracy: Measured = None
    full_valid_loss: Measured = None
    full_valid_mean_token_accuracy: Measured = None


class FineTuningJobCheckpoint(Response):
    """A checkpoint, usable by its model's name."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int
