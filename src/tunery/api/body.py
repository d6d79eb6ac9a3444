"""JSON bodies: strict JSON, bounded, and validated into a wire type."""

from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import ValidationError

from tunery.api.errors import invalid_shape
from tunery.domain.errors import InvalidRequest, TooLarge
from tunery.protocol.base import Request as WireRequest

MAX_JSON_BYTES = 8 * 1024 * 1024

Wire = TypeVar("Wire", bound=WireRequest)


async def read_json(request: Request, wire: type[Wire]) -> Wire:
    """Return the request's body; raise InvalidRequest that names what is wrong with it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge(f"The body is larger than {MAX_JSON_BYTES} bytes.")
    try:
        value = orjson.loads(bytes(body))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"We could not parse the JSON body of your request: {error.msg} (byte {error.pos})."
        ) from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body of your request needs to be a JSON object.")
    try:
        return wire.model_validate(value)
    except ValidationError as error:
        raise invalid_shape(error) from None


def documented(wire: type[WireRequest]) -> dict[str, Any]:
    """Return what tells the OpenAPI document of a body that `read_json` reads."""
    schema = wire.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
