"""The endpoints that a batch may ask, and one request to one of them, answered as the API would."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tunery.domain.batches import Reply
from tunery.domain.errors import (
    InvalidRequest,
    Overloaded,
    StorageFull,
    TuneryError,
    Unavailable,
)
from tunery.domain.tenants import Caller
from tunery.endpoints import chat, completions, embeddings, moderations, responses
from tunery.endpoints.parts import Parts
from tunery.protocol.base import Response
from tunery.telemetry import logger
from tunery.wire.errors import bug_body, error_body

Endpoint = Callable[[Parts, Caller, Any], Awaitable[Response]]

ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": chat.answer,
    "/v1/completions": completions.answer,
    "/v1/embeddings": embeddings.answer,
    "/v1/moderations": moderations.answer,
    "/v1/responses": responses.answer,
}


async def reply(parts: Parts, url: str, caller: Caller, value: Any) -> Reply:
    """Answer a body's value; a refusal is an answer too.

    Raises Overloaded, Unavailable or StorageFull: there an answer may be had later.
    """
    try:
        if value.get("stream") is True:
            raise InvalidRequest(
                "Invalid value for 'stream': an answer of a batch is always whole. Leave it out.",
                param="stream",
                code="invalid_value",
            )
        body = (await ENDPOINTS[url](parts, caller, value)).model_dump(mode="json")
    except (Overloaded, Unavailable, StorageFull):
        raise
    except TuneryError as error:
        status, envelope = error_body(error)
        return Reply(status, envelope.model_dump())
    except Exception as error:  # a bug of ours is answered, and the other lines go on
        logger().error("batch request failed by a bug", url=url, exc_info=error)
        status, envelope = bug_body()
        return Reply(status, envelope.model_dump())
    usage = body.get("usage") or {}
    return Reply(
        200,
        body,
        usage.get("prompt_tokens", usage.get("input_tokens", 0)),
        usage.get("completion_tokens", usage.get("output_tokens", 0)),
    )
