"""Webhooks: the events that are sent, where to, and when a delivery is tried again."""

from dataclasses import dataclass, field
from enum import StrEnum

MAX_ENDPOINTS = 50  # of a project
MAX_OLD_SECRETS = 4  # that sign beside the newest one
OLD_SECRET_S = 24 * 3600  # how long an old secret signs on, where its owner asked for that
GIVE_UP_S = 72 * 3600  # after its event, a delivery is tried no more
RETRY_STEPS = (1, 6, 24, 120, 360, 720, 2160)  # waits in units of the first one; the last repeats


class EventType(StrEnum):
    """What is told of, in OpenAI's words: an object has come to its end."""

    JOB_SUCCEEDED = "fine_tuning.job.succeeded"
    JOB_FAILED = "fine_tuning.job.failed"
    JOB_CANCELLED = "fine_tuning.job.cancelled"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"
    RESPONSE_COMPLETED = "response.completed"
    RESPONSE_FAILED = "response.failed"
    RESPONSE_CANCELLED = "response.cancelled"
    RESPONSE_INCOMPLETE = "response.incomplete"

    @property
    def id_prefix(self) -> str:
        """Return what the ids of its objects begin with."""
        prefixes = {"fine_tuning": "ftjob-", "batch": "batch_", "response": "resp_"}
        return prefixes[self.partition(".")[0]]


@dataclass(frozen=True, slots=True)
class OldSecret:
    """A secret that was replaced and still signs, until a Unix time."""

    secret: str = field(repr=False)
    until: int


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint's row."""

    id: str
    name: str
    url: str = field(repr=False)  # its path may be a secret
    event_types: tuple[EventType, ...]
    secret: str = field(repr=False)
    old_secrets: tuple[OldSecret, ...]
    created_at: int
    updated_at: int

    @property
    def secret_hint(self) -> str:
        """Return what tells secrets apart in a list."""
        return f"whsec_...{self.secret[-4:]}"

    def secrets_at(self, now: int) -> tuple[str, ...]:
        """Return the secrets that sign at `now`, the newest first."""
        return (self.secret, *(old.secret for old in self.old_secrets if old.until > now))


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to an endpoint: `body` is what is sent, the same at every try."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: EventType
    body: str = field(repr=False)
    attempts: int
    created_at: int


def retry_wait_s(attempts: int, first_s: float) -> float:
    """Return how long to wait after `attempts` tries that failed, before jitter."""
    return first_s * RETRY_STEPS[min(attempts, len(RETRY_STEPS)) - 1]
