"""What another service that speaks OpenAI's API shows of an organization's tuning."""

from dataclasses import dataclass

from tunery.domain.errors import TuneryError
from tunery.domain.jobs import Job


class SourceRefused(TuneryError):
    """The other service does not let us see what was asked for, or gives no sensible answer."""


class BrokenOff(TuneryError):
    """The body of an answer ended before its end; it may be asked for again."""


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A tuned model, by name."""

    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file. Its purpose is in the other service's words; its size may be unknown."""

    id: str
    filename: str
    purpose: str
    size_bytes: int | None
    created_at: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class SourceJob:
    """A job under its id: as one of ours, or `problem` says why it cannot be one."""

    id: str
    job: Job | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class SourceUsage:
    """What a model was asked for in a span of days."""

    model: str
    requests: int
    input_tokens: int
    output_tokens: int
