"""Errors to HTTP: OpenAI's envelope for everything, the framework's own errors included."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tunery.domain.errors import Conflict, Overloaded, TuneryError, Unavailable
from tunery.protocol.base import ErrorResponse
from tunery.telemetry import logger
from tunery.wire.errors import INVALID, bug_body, envelope, error_body
from tunery.wire.requests import first_error


def install(app: FastAPI) -> None:
    """Have every error of the application answered in the envelope."""
    app.add_exception_handler(TuneryError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_framework)
    app.add_exception_handler(Exception, _on_bug)


def _answer(status: int, body: ErrorResponse, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def answer_of(error: TuneryError) -> JSONResponse:
    """Return the answer that tells of `error`."""
    headers = {}
    if isinstance(error, Overloaded | Unavailable):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, Conflict):  # OpenAI's clients repeat a 409 unless told not to
        headers["x-should-retry"] = "false"
    return _answer(*error_body(error), headers)


async def _on_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TuneryError)  # noqa: S101 - registered for this type
    return answer_of(error)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
    return answer_of(first_error(list(error.errors())))


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
    return _answer(*bug_body(), {})
