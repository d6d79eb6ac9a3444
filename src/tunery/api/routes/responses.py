"""/v1/responses."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from tunery.api import streaming
from tunery.api.body import documented, read_value
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.once import once_key_of
from tunery.domain.errors import InvalidRequest
from tunery.domain.once import AlreadyDone
from tunery.endpoints import responses as endpoint
from tunery.protocol.base import ListPage
from tunery.protocol.response_request import CountInputTokensRequest, CreateResponseRequest
from tunery.protocol.responses import (
    LISTED,
    InputTokenCount,
    ListedItem,
    ResponseDeleted,
    ResponseObject,
)
from tunery.services import responses
from tunery.storage.repositories.paging import Order
from tunery.wire.pages import to_wire_page
from tunery.wire.refusals import answered_before, unsupported
from tunery.wire.responses import to_wire_response

router = APIRouter(prefix="/v1/responses")

Include = Annotated[list[str] | None, Query(description="nothing can be included afterwards")]


@router.post(
    "",
    response_model=ResponseObject,
    responses={200: streaming.DOCUMENTED},
    openapi_extra=documented(CreateResponseRequest),
)
async def create(request: Request, caller: CallerDependency) -> Response:
    """Answer an input, whole or as a stream of typed server-sent events."""
    value = await read_value(request)
    once = once_key_of(request, value)
    try:
        answer = await endpoint.begin(context_of(request).parts, caller, value, once)
        if answer.body.stream:
            await answer.start()  # an engine that refuses does so as an HTTP error
            return streaming.EventStream(_events(answer), answer.close)
        whole = await streaming.unless_gone(request, answer.whole())
    except streaming.ClientGone:
        return Response(status_code=499)  # nobody reads it
    except AlreadyDone as done:
        if value.get("stream"):
            raise answered_before(done) from None
        whole = await _fetch(request, caller, done.object_id)
    return Response(whole.model_dump_json(), media_type="application/json")


@router.post("/input_tokens", openapi_extra=documented(CountInputTokensRequest))
async def count_input_tokens(request: Request, caller: CallerDependency) -> InputTokenCount:
    """Count an input's tokens."""
    return await endpoint.count(context_of(request).parts, caller, await read_value(request))


@router.get("/{response_id}")
async def retrieve(
    request: Request,
    caller: CallerDependency,
    response_id: str,
    include: Include = None,
    stream: bool | None = None,
    starting_after: int | None = None,
    include_obfuscation: bool | None = None,
) -> ResponseObject:
    """Return a response that was kept."""
    _refuse_include(request)
    for name, asked in (
        ("stream", stream),
        ("starting_after", starting_after is not None),
        ("include_obfuscation", include_obfuscation),
    ):
        if asked:
            raise unsupported(name)
    return await _fetch(request, caller, response_id)


@router.delete("/{response_id}")
async def delete(request: Request, caller: CallerDependency, response_id: str) -> ResponseDeleted:
    """Remove a response."""
    await run_in_threadpool(
        responses.delete_response, context_of(request).database, caller.tenant, response_id
    )
    return ResponseDeleted(id=response_id)


@router.post("/{response_id}/cancel")
async def cancel(request: Request, caller: CallerDependency, response_id: str) -> ResponseObject:
    """Refuse: only a background response can be cancelled, and there are none."""
    await _fetch(request, caller, response_id)
    raise InvalidRequest(
        "Cannot cancel a synchronous response: only responses created with background=true can be"
        " cancelled."
    )


@router.get("/{response_id}/input_items")
async def input_items(
    request: Request,
    caller: CallerDependency,
    response_id: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
    include: Include = None,
) -> ListPage[ListedItem]:
    """List what a response was made from, newest first."""
    _refuse_include(request)
    page = await run_in_threadpool(
        responses.list_input_items,
        context_of(request).database,
        caller.tenant,
        response_id,
        after=after,
        limit=limit,
        order=order,
    )
    return to_wire_page([LISTED.validate_python(item) for item in page.items], page.has_more)


async def _fetch(request: Request, caller: CallerDependency, response_id: str) -> ResponseObject:
    found = await run_in_threadpool(
        responses.get_response, context_of(request).database, caller.tenant, response_id
    )
    return to_wire_response(found)


def _refuse_include(request: Request) -> None:
    """Refuse `include`, which SDKs write as `include[]`."""
    if any(name.partition("[")[0] == "include" for name in request.query_params):
        raise unsupported("include")


async def _events(answer: endpoint.ResponseAnswer) -> AsyncGenerator[bytes, None]:
    async for event in answer.events():
        yield b"event: " + event.type.encode() + b"\n" + streaming.event(event.model_dump())
