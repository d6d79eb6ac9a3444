"""JSON bodies: strict JSON, bounded, and validated into a wire type."""

from typing import Any, TypeVar

import orjson
from fastapi import Request

from tunery.domain.errors import InvalidRequest, TooLarge, UnsupportedMedia
from tunery.protocol.base import Request as WireRequest
from tunery.wire.requests import from_wire_value

MAX_JSON_BYTES = 8 * 1024 * 1024
MAX_VALUES = 400_000  # of one body: 300,000 token ids fit, a million keys would take 100 MB

Wire = TypeVar("Wire", bound=WireRequest)


async def read_json(request: Request, wire: type[Wire]) -> Wire:
    """Return the request's body; raise InvalidRequest that names what is wrong with it."""
    return from_wire_value(await read_value(request), wire)


async def read_value(request: Request) -> Any:
    """Return the JSON value of the request's body; raise InvalidRequest where it is none."""
    refuse_encoded(request)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge(f"The body is larger than {MAX_JSON_BYTES} bytes.")
    if body.count(b",") > MAX_VALUES:
        raise TooLarge(
            f"The body has more than {MAX_VALUES} values; send them in several requests."
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"We could not parse the JSON body of your request: {error.msg} (byte {error.pos})."
        ) from None


def refuse_encoded(request: Request) -> None:
    """Raise UnsupportedMedia for a body that is compressed: a small one could become a huge one."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMedia(
            f"Got a body with Content-Encoding {encoding[:80]!r}; send it as it is, uncompressed."
        )


def documented(wire: type[WireRequest]) -> dict[str, Any]:
    """Return what tells the OpenAPI document of a body that `read_json` reads."""
    schema = wire.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
