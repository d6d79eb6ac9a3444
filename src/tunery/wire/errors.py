"""Errors as OpenAI writes them: one table from ours to status and envelope."""

from tunery.domain.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    StorageFull,
    TooLarge,
    TuneryError,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from tunery.protocol.base import ErrorBody, ErrorResponse

INVALID = "invalid_request_error"

# The first class that fits gives the status and OpenAI's error type.
STATUS: tuple[tuple[type[TuneryError], int, str], ...] = (
    (TooLarge, 413, INVALID),
    (UnsupportedMedia, 415, INVALID),
    (InvalidRequest, 400, INVALID),
    (Unauthenticated, 401, INVALID),
    (Forbidden, 403, INVALID),
    (NotFound, 404, INVALID),
    (Conflict, 409, INVALID),
    (Overloaded, 503, "service_unavailable_error"),
    (Unavailable, 503, "service_unavailable_error"),
    (StorageFull, 507, "server_error"),
    (TuneryError, 500, "server_error"),
)


def error_body(error: TuneryError) -> tuple[int, ErrorResponse]:
    """Return the status and the envelope of an error of ours."""
    status, kind = next((s, k) for cls, s, k in STATUS if isinstance(error, cls))
    return status, envelope(error.message, kind, error.param, error.code)


def envelope(message: str, kind: str, param: str | None, code: str | None) -> ErrorResponse:
    """Return the envelope: all four keys are always there."""
    return ErrorResponse(error=ErrorBody(message=message, type=kind, param=param, code=code))


def bug_body() -> tuple[int, ErrorResponse]:
    """Return the status and the envelope of what ought not to happen."""
    message = "The server had an error while processing your request. Sorry about that!"
    return 500, envelope(message, "server_error", None, None)
