"""/v1/chat/completions of stored answers: listed, fetched, labelled anew, deleted."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from tunery.api.body import documented, read_json
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.query import MetadataDependency
from tunery.protocol.base import ListPage
from tunery.protocol.stored_completions import (
    ChatCompletionDeleted,
    StoredChatCompletion,
    StoredMessage,
    UpdateChatCompletionRequest,
)
from tunery.services import stored_completions
from tunery.storage.repositories.paging import Order
from tunery.wire.pages import to_wire_page
from tunery.wire.stored_completions import to_wire_stored_completion, to_wire_stored_message

router = APIRouter(prefix="/v1/chat/completions")

Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("")
async def list_all(
    request: Request,
    caller: CallerDependency,
    metadata: MetadataDependency,
    model: str | None = None,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> ListPage[StoredChatCompletion]:
    """List stored completions, oldest first."""
    page = await run_in_threadpool(
        stored_completions.list_completions,
        context_of(request).database,
        caller.tenant,
        model=model,
        metadata=metadata,
        after=after,
        limit=limit,
        order=order,
    )
    return to_wire_page([to_wire_stored_completion(one) for one in page.items], page.has_more)


@router.get("/{completion_id}")
async def retrieve(
    request: Request, caller: CallerDependency, completion_id: str
) -> StoredChatCompletion:
    """Return a stored completion."""
    found = await run_in_threadpool(
        stored_completions.get_completion,
        context_of(request).database,
        caller.tenant,
        completion_id,
    )
    return to_wire_stored_completion(found)


@router.post("/{completion_id}", openapi_extra=documented(UpdateChatCompletionRequest))
async def update(
    request: Request, caller: CallerDependency, completion_id: str
) -> StoredChatCompletion:
    """Change a stored completion's metadata."""
    body = await read_json(request, UpdateChatCompletionRequest)
    found = await run_in_threadpool(
        stored_completions.update_completion,
        context_of(request).database,
        caller.tenant,
        completion_id,
        body.metadata,
    )
    return to_wire_stored_completion(found)


@router.delete("/{completion_id}")
async def delete(
    request: Request, caller: CallerDependency, completion_id: str
) -> ChatCompletionDeleted:
    """Remove a stored completion."""
    await run_in_threadpool(
        stored_completions.delete_completion,
        context_of(request).database,
        caller.tenant,
        completion_id,
    )
    return ChatCompletionDeleted(id=completion_id)


@router.get("/{completion_id}/messages")
async def messages(
    request: Request,
    caller: CallerDependency,
    completion_id: str,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> ListPage[StoredMessage]:
    """List the messages that a stored completion answers."""
    page = await run_in_threadpool(
        stored_completions.list_messages,
        context_of(request).database,
        caller.tenant,
        completion_id,
        after=after,
        limit=limit,
        order=order,
    )
    return to_wire_page([to_wire_stored_message(*one) for one in page.items], page.has_more)
