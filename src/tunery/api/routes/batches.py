"""/v1/batches."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from tunery.api.body import documented, read_json
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.once import once_key
from tunery.domain.errors import InvalidRequest
from tunery.domain.once import AlreadyDone
from tunery.endpoints.registry import ENDPOINTS
from tunery.protocol.base import ListPage
from tunery.protocol.batches import Batch, CreateBatchRequest
from tunery.services import batches
from tunery.wire.batches import to_wire_batch
from tunery.wire.pages import to_wire_page

router = APIRouter(prefix="/v1/batches")


@router.post("", openapi_extra=documented(CreateBatchRequest))
async def create(request: Request, caller: CallerDependency) -> Batch:
    """Create a batch of the requests in an uploaded file."""
    database = context_of(request).database
    body = await read_json(request, CreateBatchRequest)
    if body.endpoint not in ENDPOINTS:
        raise InvalidRequest(
            f"Invalid value: '{body.endpoint[:80]}'. Supported values are:"
            f" {', '.join(repr(url) for url in ENDPOINTS)}.",
            param="endpoint",
            code="invalid_value",
        )
    expires = body.output_expires_after
    wanted = batches.BatchRequest(
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        metadata=body.metadata,
        output_expires_after_s=None if expires is None else expires.seconds,
    )
    try:
        batch = await run_in_threadpool(
            batches.create_batch, database, caller, wanted, once_key(request, body)
        )
    except AlreadyDone as done:
        batch = await run_in_threadpool(batches.get_batch, database, caller.tenant, done.object_id)
    return to_wire_batch(batch)


@router.get("")
async def list_all(
    request: Request,
    caller: CallerDependency,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ListPage[Batch]:
    """List batches, newest first."""
    page = await run_in_threadpool(
        batches.list_batches,
        context_of(request).database,
        caller.tenant,
        after=after,
        limit=limit,
    )
    return to_wire_page([to_wire_batch(batch) for batch in page.items], page.has_more)


@router.get("/{batch_id}")
async def retrieve(request: Request, caller: CallerDependency, batch_id: str) -> Batch:
    """Return a batch."""
    return to_wire_batch(
        await run_in_threadpool(
            batches.get_batch, context_of(request).database, caller.tenant, batch_id
        )
    )


@router.post("/{batch_id}/cancel")
async def cancel(request: Request, caller: CallerDependency, batch_id: str) -> Batch:
    """Stop a batch; what was answered is in its files."""
    return to_wire_batch(
        await run_in_threadpool(
            batches.cancel_batch, context_of(request).database, caller.tenant, batch_id
        )
    )
