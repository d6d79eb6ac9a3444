"""A fine-tuning job: its record, its states, and the only way from one state to the next."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from tunery.domain.errors import Conflict
from tunery.domain.files import LineFormat

MIN_EXAMPLES = 10


class JobStatus(StrEnum):
    """Where a job stands, in OpenAI's words."""

    VALIDATING_FILES = "validating_files"  # accepted; its files are being checked
    QUEUED = "queued"  # fit to train; waits for a worker
    RUNNING = "running"  # a worker trains, or publishes
    PAUSED = "paused"  # stopped by its owner until resumed; not in OpenAI's enum, but on its wire
    SUCCEEDED = "succeeded"  # the tuned model answers
    FAILED = "failed"  # stopped by an error that the job names
    CANCELLED = "cancelled"  # stopped by its owner


class JobEvent(StrEnum):
    """What can happen to a job."""

    FILES_ACCEPTED = "files_accepted"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    PUBLISHED = "published"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: dict[tuple[JobStatus, JobEvent], JobStatus] = {
    (JobStatus.VALIDATING_FILES, JobEvent.FILES_ACCEPTED): JobStatus.QUEUED,
    (JobStatus.VALIDATING_FILES, JobEvent.FAILED): JobStatus.FAILED,
    (JobStatus.VALIDATING_FILES, JobEvent.CANCELLED): JobStatus.CANCELLED,
    (JobStatus.QUEUED, JobEvent.STARTED): JobStatus.RUNNING,
    (JobStatus.QUEUED, JobEvent.PAUSED): JobStatus.PAUSED,
    (JobStatus.QUEUED, JobEvent.FAILED): JobStatus.FAILED,
    (JobStatus.QUEUED, JobEvent.CANCELLED): JobStatus.CANCELLED,
    (JobStatus.RUNNING, JobEvent.PUBLISHED): JobStatus.SUCCEEDED,
    (JobStatus.RUNNING, JobEvent.PAUSED): JobStatus.PAUSED,
    (JobStatus.RUNNING, JobEvent.FAILED): JobStatus.FAILED,
    (JobStatus.RUNNING, JobEvent.CANCELLED): JobStatus.CANCELLED,
    (JobStatus.PAUSED, JobEvent.RESUMED): JobStatus.QUEUED,
    (JobStatus.PAUSED, JobEvent.FAILED): JobStatus.FAILED,  # its run failed while it wound down
    (JobStatus.PAUSED, JobEvent.CANCELLED): JobStatus.CANCELLED,
}
TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})


def next_status(status: JobStatus, event: JobEvent) -> JobStatus:
    """Return the state that `event` leads to; raise Conflict where the table has no such step."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        allowed = sorted(step for state, step in TRANSITIONS if state == status)
        raise Conflict(
            f"A job that is {status} cannot be {event};"
            f" it allows {', '.join(allowed) if allowed else 'no further change'}."
        ) from None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed: OpenAI's code, one line, and the request field at fault."""

    code: str
    message: str
    param: str | None


class TrainingMethod(StrEnum):
    """What a job minimises, in OpenAI's words."""

    SUPERVISED = "supervised"  # the cross-entropy of the answers
    DPO = "dpo"  # that of preferring one answer to another, against the weights it started from

    @property
    def line_formats(self) -> tuple[LineFormat, ...]:
        """Return what the lines of its files may be."""
        if self is TrainingMethod.DPO:
            return (LineFormat.PREFERENCE,)
        return LineFormat.CHAT, LineFormat.COMPLETION


@dataclass(frozen=True, slots=True)
class RequestedHyperparameters:
    """What the job was created with: a number, or "auto" where the service chooses.

    `beta` is of preferences only: None for every other method.
    """

    n_epochs: int | Literal["auto"] = "auto"
    batch_size: int | Literal["auto"] = "auto"
    learning_rate_multiplier: float | Literal["auto"] = "auto"
    beta: float | Literal["auto"] | None = None


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What the job trains with: every "auto" resolved."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float | None = None


@dataclass(frozen=True, slots=True)
class WandbIntegration:
    """Where in Weights & Biases a job's metrics are to go."""

    project: str
    name: str | None = None
    entity: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job's row."""

    id: str
    model: str  # the name that was asked for: an alias, a base, or a tuned model
    base: str  # the base it stands for, pinned when the job was created
    base_digest: str  # empty where no base of ours stands behind it: the job was imported
    parent_model: str | None  # the tuned model that training starts from
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    requested: RequestedHyperparameters
    resolved: Hyperparameters | None
    metadata: dict[str, str] | None
    status: JobStatus
    error: JobError | None
    trained_tokens: int | None
    fine_tuned_model: str | None
    result_files: tuple[str, ...]
    created_at: int
    started_at: int | None
    finished_at: int | None
    integrations: tuple[WandbIntegration, ...] = ()
    method: TrainingMethod = TrainingMethod.SUPERVISED
    estimated_finish: int | None = None  # as its run saw it last
    imported_from: str | None = None  # the URL of the service that carried it out, not this one
    replaces: str | None = None  # the imported model whose name its own model takes over

    def run_id(self, number: int) -> str:
        """Return the id of the run that the integration of this number, from 0, makes."""
        return self.id if number == 0 else f"{self.id}-{number + 1}"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a job's story; `data` holds its numbers, where it has any."""

    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    kind: Literal["message", "metrics", "moderation_checks"]  # the last is OpenAI's alone
    message: str
    data: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The numbers of one training step. Losses are mean nats: a supervised token, or a pair.

    Of preferences there are rewards too: beta times how much likelier than before training the
    answer is, in nats, as a mean over pairs; the margin is the chosen answer's less the rejected
    one's, and the accuracy the share of pairs in which it is above zero. Accuracies of tokens are
    then those of the chosen answers.
    """

    step: int
    total_steps: int
    train_loss: float
    train_mean_token_accuracy: float
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    train_chosen_reward: float | None = None
    train_rejected_reward: float | None = None
    train_reward_margin: float | None = None
    train_reward_accuracy: float | None = None
    valid_chosen_reward: float | None = None
    valid_rejected_reward: float | None = None
    valid_reward_margin: float | None = None
    valid_reward_accuracy: float | None = None
    full_valid_chosen_reward: float | None = None
    full_valid_rejected_reward: float | None = None
    full_valid_reward_margin: float | None = None
    full_valid_reward_accuracy: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None  # before it is clipped
    # What depends on the clock makes no two runs differ.
    tokens_per_second: float | None = field(default=None, compare=False)
    seconds_left: float | None = field(default=None, compare=False)  # of the run and its check

    def told(self) -> dict[str, float]:
        """Return the numbers that there are; how long the rest takes is the job's to tell."""
        numbers = asdict(self)
        del numbers["seconds_left"]
        return {name: value for name, value in numbers.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Adapter:
    """Adapter files in the blob store: `<key>/adapter_model.safetensors` and its config.

    `digest` is the SHA-256 of the safetensors file, in hex.
    """

    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point that a run can resume from: weights and optimizer as they were after `step`.

    `digest` is the SHA-256 of its bytes, in hex; None where an earlier version wrote it.
    """

    step: int
    key: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class EpochCheckpoint:
    """The adapter at the end of an epoch, before it has a name."""

    step: int
    epoch: int
    adapter: Adapter
    metrics: StepMetrics


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published checkpoint: an epoch's adapter under a model's name."""

    id: str
    job_id: str
    step: int
    model_name: str
    metrics: Mapping[str, float]  # those of its step that there are
    created_at: int
