"""What trains: a run goes in, reports come out. And what runs it in a process of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tunery.domain.jobs import (
    Adapter,
    EpochCheckpoint,
    Hyperparameters,
    Snapshot,
    StepMetrics,
    TrainingMethod,
)


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """One attempt at one job. It writes blobs below `output_prefix` and nowhere else.

    That is the job's own prefix and one more name, the attempt's.
    """

    job_id: str
    base: str
    base_digest: str
    training_key: str
    validation_key: str | None
    hyperparameters: Hyperparameters
    seed: int
    output_prefix: str
    start_from: Adapter | None = None  # tuning a tuned model
    resume_from: Snapshot | None = None
    method: TrainingMethod = TrainingMethod.SUPERVISED

    @property
    def job_prefix(self) -> str:
        """Return the folder of everything that the job's attempts write."""
        return self.output_prefix.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class MadeWith:
    """What a run's bytes depend on, besides what its job says of itself.

    A job of the same seed and hyperparameters for which all of this is the same ends with an
    adapter of the same digest. Digests are SHA-256, in hex.
    """

    tunery: str  # versions
    torch: str
    transformers: str
    tokenizers: str
    python: str
    processor: str  # its kind, and the instructions that torch takes on it
    arithmetic: str
    threads: int
    base_digest: str
    start_from_digest: str | None  # of the adapter that a tuned model was
    training_digest: str  # of the files
    validation_digest: str | None
    template_digest: str  # of the chat template with the tokenizer


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The model and the data are there; `total_steps` optimizer steps are ahead.

    `first_step` is 1 where the snapshot to resume from was not there as it was written.
    """

    total_steps: int
    first_step: int
    made_with: MadeWith | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The last epoch is done; `trained_tokens` counts every epoch's tokens of the file."""

    trained_tokens: int


@dataclass(frozen=True, slots=True)
class RunPaused:
    """The run has stopped because it was asked to; its last snapshot holds every step it took."""


@dataclass(frozen=True, slots=True)
class RunInterrupted:
    """The run cannot go on now, through no fault of its own: it is to be tried again."""

    message: str


@dataclass(frozen=True, slots=True)
class RunFailed:
    """The run cannot go on: a code and one line for the job's owner.

    Checkpoints of steps behind `good_step` are not worth keeping; None: all of them are.
    """

    code: str
    message: str
    good_step: int | None = None


OUT_OF_MEMORY = RunFailed(
    "out_of_memory",
    "Training needed more memory than the machine has; set a smaller batch_size or shorten the"
    " examples.",
)

TrainingReport = (
    RunStarted
    | StepMetrics
    | EpochCheckpoint
    | Snapshot
    | RunFinished
    | RunPaused
    | RunInterrupted
    | RunFailed
)


class Trainer(Protocol):
    """Trains in this process."""

    def train(
        self,
        run: TrainingRun,
        report: Callable[[TrainingReport], None],
        pause_wanted: Callable[[], bool],
    ) -> None:
        """Carry out `run`; every step, checkpoint and the end (or failure) go to `report`.

        Once `pause_wanted`, it ends after the current step, with a snapshot and RunPaused.
        """


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """What the reference has to score: adapters (None: the base alone) on token sequences."""

    base: str
    base_digest: str
    adapters: tuple[Adapter, ...]
    token_ids: tuple[tuple[int, ...], ...]


class Reference(Protocol):
    """Scores with code that shares nothing with the engine: transformers and PEFT in fp32."""

    def score(self, request: ProofRequest) -> list[list[list[float]]]:
        """Return log-probabilities [adapter][sequence][token] as Engine.score defines them."""


class RunHandle(Protocol):
    """A run in another process."""

    def reports(self, wait_s: float) -> Iterator[TrainingReport]:
        """Yield what was reported until the run ends, or until `wait_s` pass without a report."""

    @property
    def finished(self) -> bool:
        """Whether the process has ended and every report was yielded."""

    def pause(self) -> None:
        """Ask for a snapshot and the end after the current step; to ask again changes nothing."""

    def stop(self) -> None:
        """End the process now; a run that has ended is left as it is."""


class Executor(Protocol):
    """Runs training and the reference outside the worker's own process."""

    def start(self, run: TrainingRun) -> RunHandle:
        """Start `run`."""

    def reference(self, request: ProofRequest) -> Sequence[Sequence[Sequence[float]]]:
        """Return what Reference.score gives; raise Unavailable where its process fails."""
