"""Errors to HTTP: one table, and OpenAI's envelope for everything, the framework's own included."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

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
)
from tunery.protocol.base import ErrorBody, ErrorResponse
from tunery.telemetry import logger

INVALID = "invalid_request_error"

# The first class that fits gives the status and OpenAI's error type.
STATUS: tuple[tuple[type[TuneryError], int, str], ...] = (
    (TooLarge, 413, INVALID),
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


def install(app: FastAPI) -> None:
    """Have every error of the application answered in the envelope."""
    app.add_exception_handler(TuneryError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_framework)
    app.add_exception_handler(Exception, _on_bug)


def error_body(error: TuneryError) -> tuple[int, ErrorResponse]:
    """Return the status and the envelope of an error of ours."""
    status, kind = next((s, k) for cls, s, k in STATUS if isinstance(error, cls))
    return status, envelope(error.message, kind, error.param, error.code)


def envelope(message: str, kind: str, param: str | None, code: str | None) -> ErrorResponse:
    """Return the envelope: all four keys are always there."""
    return ErrorResponse(error=ErrorBody(message=message, type=kind, param=param, code=code))


def invalid_shape(error: ValidationError) -> InvalidRequest:
    """Return one line for the first thing that is wrong with a body."""
    return _first(error.errors(include_url=False, include_context=False, include_input=False))


def _first(errors: list[ErrorDetails]) -> InvalidRequest:
    """Return the error for the first field at fault, in the words of the alternative meant.

    A field of several types fails once for each: the one that came furthest, or broke a rule
    rather than a type, is what the caller meant.
    """
    top = _path(errors[0])
    same = [error for error in errors if _path(error)[: len(top)] == top]

    def nearness(error: ErrorDetails) -> tuple[int, int]:
        depth = len(_path(error))
        if error["type"] == "literal_error" and depth > len(top):  # the `type` of a part
            return depth, 2
        return depth, int(error["type"] not in _MISMATCHES)

    meant = max(same, key=nearness)
    path = _path(meant)
    param = ".".join(path) or None
    if meant["type"] == "extra_forbidden":
        return InvalidRequest(
            f"Unrecognized request argument supplied: {param}",
            param=param,
            code="unknown_parameter",
        )
    if meant["type"] == "missing":
        return InvalidRequest(
            f"Missing required parameter: '{param}'.",
            param=param,
            code="missing_required_parameter",
        )
    reasons = [meant["msg"]]
    if meant["type"] in _MISMATCHES:
        reasons = [error["msg"] for error in same if _path(error) == path]
    text = reasons[0] + "".join(" or " + r.removeprefix("Input should be ") for r in reasons[1:])
    return InvalidRequest(
        f"Invalid value for '{param}': {text}.", param=param, code="invalid_value"
    )


_MISMATCHES = ("string_type", "int_type", "float_type", "list_type", "dict_type", "literal_error")


def _path(error: ErrorDetails) -> list[str]:
    """Return the fields that lead to an error; alternatives of a union are named by their type."""
    named = [
        str(part)
        for part in error["loc"]
        if isinstance(part, int)
        or (not any(sign in part for sign in "[]()-") and part[:1].islower())
    ]
    return [part for part in named if part not in ("body", "query", "path", "str", "int", "float")]


def _answer(status: int, body: ErrorResponse, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


async def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TuneryError)  # noqa: S101 - registered for this type
    headers = {}
    if isinstance(error, Overloaded | Unavailable):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, Conflict):  # OpenAI's clients repeat a 409 unless told not to
        headers["x-should-retry"] = "false"
    return _answer(*error_body(error), headers)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
    return await _on_ours(request, _first(list(error.errors())))


async def _on_framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
    message = str(error.detail)
    if error.status_code == 404:
        message = f"Invalid URL ({request.method} {request.url.path[:200]})"
    elif error.status_code == 405:
        message = (
            f"Not allowed to {request.method} on {request.url.path[:200]} (HINT: Perhaps you meant"
            " to use a different HTTP method?)"
        )
    return _answer(
        error.status_code, envelope(message, INVALID, None, None), dict(error.headers or {})
    )


async def _on_bug(request: Request, error: Exception) -> JSONResponse:
    logger().error("request failed by a bug", path=request.url.path, exc_info=error)
    message = "The server had an error while processing your request. Sorry about that!"
    return _answer(500, envelope(message, "server_error", None, None), {})
