"""The OpenAPI document: errors, names and shared shapes, said once for all routes.

Knows no route: what is particular to one stands beside it.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from tunery.protocol.base import ErrorResponse

_REASONS = {
    400: "The request cannot be honoured; `param` names the field.",
    401: "The key is missing or not known.",
    403: "The key may not do this.",
    404: "There is no such thing, or it is not yours.",
    409: "What it is about is in use or has moved on.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "Too much at once; try again after `Retry-After`.",
    503: "A part of the service does not answer; try again after `Retry-After`.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": reason} for status, reason in _REASONS.items()
}


def operation_id(route: APIRoute) -> str:
    """Return a name that stays when a path is spelled otherwise: module and function."""
    return f"{route.endpoint.__module__.rpartition('.')[2]}_{route.name}"


def install(app: FastAPI) -> None:
    """Have the application describe itself as it is."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _mended(generate())
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way


def _mended(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without the framework's own errors, and with bodies' shapes shared."""
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # answered as a 400 of ours
        schemas.pop(name, None)
    for operation in _operations(document):
        operation["responses"].pop("422", None)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schemas.update(content.get("schema", {}).pop("$defs", {}))
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()
