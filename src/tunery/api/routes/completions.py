"""/v1/completions."""

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tunery.api import streaming
from tunery.api.body import documented, read_value
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.endpoints import completions
from tunery.protocol.completions import Completion, CreateCompletionRequest

router = APIRouter(prefix="/v1/completions")


@router.post("", response_model=Completion, openapi_extra=documented(CreateCompletionRequest))
async def create(request: Request, caller: CallerDependency) -> Response:
    """Go on from a text, whole or as a stream of server-sent events."""
    answer = await completions.begin(context_of(request).parts, caller, await read_value(request))
    if answer.body.stream:
        await answer.start()  # an engine that refuses does so as an HTTP error, not as an event
        return streaming.EventStream(_events(answer), answer.close)
    try:
        whole = await streaming.unless_gone(request, answer.whole())
    except streaming.ClientGone:
        return Response(status_code=499)  # nobody reads it
    return Response(whole.model_dump_json(), media_type="application/json")


async def _events(answer: completions.CompletionAnswer) -> AsyncGenerator[bytes, None]:
    options = answer.body.stream_options
    with_usage = options is not None and options.include_usage
    async for piece in answer.pieces():
        value = piece.model_dump()
        if not with_usage:
            del value["usage"]
        yield streaming.event(value)
    yield streaming.DONE
