"""A batch of requests: its record, its states, and the only way from one state to the next."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tunery.domain.errors import Conflict
from tunery.domain.tenants import Caller

WINDOW = "24h"  # the only completion window that there is
WINDOW_S = 24 * 3600
MAX_LINES = 50_000
MAX_LISTED_PROBLEMS = 50


class BatchStatus(StrEnum):
    """Where a batch stands, in OpenAI's words."""

    VALIDATING = "validating"  # accepted; its lines are being checked
    FAILED = "failed"  # stopped by what its `errors` name
    IN_PROGRESS = "in_progress"  # its lines are asked, or wait for their turn
    FINALIZING = "finalizing"  # every line is answered; the files are being written
    COMPLETED = "completed"  # its files are there
    EXPIRED = "expired"  # its time was up; its files hold what was answered
    CANCELLING = "cancelling"  # stopped by its owner; the files are being written
    CANCELLED = "cancelled"  # stopped; its files hold what was answered


class BatchEvent(StrEnum):
    """What can happen to a batch."""

    ACCEPTED = "accepted"
    ANSWERED = "answered"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


TRANSITIONS: dict[tuple[BatchStatus, BatchEvent], BatchStatus] = {
    (BatchStatus.VALIDATING, BatchEvent.ACCEPTED): BatchStatus.IN_PROGRESS,
    (BatchStatus.VALIDATING, BatchEvent.FAILED): BatchStatus.FAILED,
    (BatchStatus.VALIDATING, BatchEvent.EXPIRED): BatchStatus.EXPIRED,
    (BatchStatus.VALIDATING, BatchEvent.CANCELLING): BatchStatus.CANCELLING,
    (BatchStatus.IN_PROGRESS, BatchEvent.ANSWERED): BatchStatus.FINALIZING,
    (BatchStatus.IN_PROGRESS, BatchEvent.FAILED): BatchStatus.FAILED,
    (BatchStatus.IN_PROGRESS, BatchEvent.EXPIRED): BatchStatus.EXPIRED,
    (BatchStatus.IN_PROGRESS, BatchEvent.CANCELLING): BatchStatus.CANCELLING,
    (BatchStatus.FINALIZING, BatchEvent.COMPLETED): BatchStatus.COMPLETED,
    (BatchStatus.FINALIZING, BatchEvent.FAILED): BatchStatus.FAILED,
    (BatchStatus.CANCELLING, BatchEvent.CANCELLED): BatchStatus.CANCELLED,
}
TERMINAL = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


def next_status(status: BatchStatus, event: BatchEvent) -> BatchStatus:
    """Return the state that `event` leads to; raise Conflict where the table has no such step."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        allowed = sorted(step for state, step in TRANSITIONS if state == status)
        raise Conflict(
            f"A batch that is {status} cannot be {event};"
            f" it allows {', '.join(allowed) if allowed else 'no further change'}."
        ) from None


@dataclass(frozen=True, slots=True)
class BatchProblem:
    """One thing that keeps a batch from being run, or has ended it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's row. `key_id` made it; that key may be revoked since, and the batch goes on."""

    id: str
    key_id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    output_expires_after_s: int | None
    metadata: dict[str, str] | None
    status: BatchStatus
    errors: tuple[BatchProblem, ...]
    model: str | None
    output_file_id: str | None
    error_file_id: str | None
    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What the API answers to one request: a status, a body, and the tokens it used."""

    status_code: int
    body: dict[str, Any]
    input_tokens: int = 0
    output_tokens: int = 0


Answer = Callable[[str, Caller, Any], Awaitable[Reply]]
"""Asks an endpoint (its URL, who asks, the body's value); raises Overloaded or Unavailable where
no answer can be had now, and StorageFull where none can be kept."""


@dataclass(frozen=True, slots=True)
class AnsweredLine:
    """A line of the input file and the line that it becomes in the output or the error file."""

    line: int
    succeeded: bool
    output: dict[str, Any]
    input_tokens: int = 0
    output_tokens: int = 0


def line_key(batch_id: str, line: int) -> str:
    """Return what a line's ids end with: the same however often the line is asked."""
    return hashlib.sha256(f"{batch_id}:{line}".encode()).hexdigest()[:24]


def answered(batch_id: str, line: int, custom_id: str, reply: Reply) -> AnsweredLine:
    """Return a line with the API's answer to it."""
    response = {
        "status_code": reply.status_code,
        "request_id": request_id(batch_id, line),
        "body": reply.body,
    }
    return AnsweredLine(
        line=line,
        succeeded=reply.status_code < 400,
        output=_output(batch_id, line, custom_id, response, None),
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
    )


def not_run(batch_id: str, line: int, custom_id: str, error: tuple[str, str]) -> AnsweredLine:
    """Return a line that was never answered, with the code and the words for why."""
    value = {"code": error[0], "message": error[1]}
    return AnsweredLine(line, False, _output(batch_id, line, custom_id, None, value))


def request_id(batch_id: str, line: int) -> str:
    """Return the id that a line is asked and charged under."""
    return f"req_{line_key(batch_id, line)}"


def _output(
    batch_id: str,
    line: int,
    custom_id: str,
    response: dict[str, Any] | None,
    error: dict[str, str] | None,
) -> dict[str, Any]:
    return {
        "id": f"batch_req_{line_key(batch_id, line)}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
