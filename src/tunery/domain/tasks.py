"""Units of background work, leased by one worker at a time."""

from dataclasses import dataclass
from enum import StrEnum

from tunery.domain.tenants import Tenant


class TaskKind(StrEnum):
    """What a task does; `subject` names the object it does it to."""

    CHECK_FILE = "check_file"
    PREPARE_JOB = "prepare_job"
    TRAIN_JOB = "train_job"
    PUBLISH_JOB = "publish_job"
    KEEP_CHECKPOINTS = "keep_checkpoints"  # of a job that failed or was cancelled
    CHECK_BATCH = "check_batch"
    RUN_BATCH = "run_batch"
    END_BATCH = "end_batch"
    DELIVER_WEBHOOK = "deliver_webhook"


MAX_FAILURES = 8  # a task that failed or broke its worker this often fails its job


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed task. `fence` grows with each claim: a write under an older one is refused.

    `failures` counts the tries that ended in a fault or in silence; being put back is none.
    """

    id: int
    kind: TaskKind
    subject: str
    tenant: Tenant
    fence: int
    failures: int = 0


class LeaseLost(Exception):
    """Another worker holds the task now: whatever this one did since is not to be kept."""
