"""/v1/webhook_endpoints and /v1/webhook_event_types."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from tunery.api.body import documented, read_json
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.once import once_key
from tunery.domain.once import AlreadyDone
from tunery.domain.webhooks import EventType
from tunery.protocol.base import ListPage
from tunery.protocol.webhooks import (
    CreateWebhookEndpointRequest,
    RotateWebhookSecretRequest,
    TestWebhookEndpointRequest,
    UpdateWebhookEndpointRequest,
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointTest,
    WebhookEndpointWithSecret,
    WebhookEventTypeList,
)
from tunery.services import deliveries, webhooks
from tunery.wire.pages import to_wire_page
from tunery.wire.webhooks import (
    from_wire_changes,
    from_wire_event_type,
    from_wire_event_types,
    to_wire_endpoint,
    to_wire_endpoint_with_secret,
)

router = APIRouter(prefix="/v1")
_ENDPOINTS = "/webhook_endpoints"
_ENDPOINT = "/webhook_endpoints/{endpoint_id}"


@router.post(_ENDPOINTS, openapi_extra=documented(CreateWebhookEndpointRequest))
async def create(
    request: Request, caller: CallerDependency
) -> WebhookEndpointWithSecret | WebhookEndpoint:
    """Create an endpoint; its secret is shown this once."""
    context = context_of(request)
    body = await read_json(request, CreateWebhookEndpointRequest)
    event_types = from_wire_event_types(body.event_types)
    await context.sender.check(body.url)
    try:
        endpoint = await run_in_threadpool(
            webhooks.create_endpoint,
            context.database,
            caller.tenant,
            name=body.name,
            url=body.url,
            event_types=event_types,
            once=once_key(request, body),
        )
    except AlreadyDone as done:
        return to_wire_endpoint(
            await run_in_threadpool(
                webhooks.get_endpoint, context.database, caller.tenant, done.object_id
            )
        )
    return to_wire_endpoint_with_secret(endpoint)


@router.get(_ENDPOINTS)
async def list_all(
    request: Request,
    caller: CallerDependency,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ListPage[WebhookEndpoint]:
    """List endpoints, newest first."""
    page = await run_in_threadpool(
        webhooks.list_endpoints,
        context_of(request).database,
        caller.tenant,
        after=after,
        limit=limit,
    )
    return to_wire_page([to_wire_endpoint(one) for one in page.items], page.has_more)


@router.get(_ENDPOINT)
async def retrieve(request: Request, caller: CallerDependency, endpoint_id: str) -> WebhookEndpoint:
    """Return an endpoint."""
    endpoint = await run_in_threadpool(
        webhooks.get_endpoint, context_of(request).database, caller.tenant, endpoint_id
    )
    return to_wire_endpoint(endpoint)


@router.post(_ENDPOINT, openapi_extra=documented(UpdateWebhookEndpointRequest))
async def update(request: Request, caller: CallerDependency, endpoint_id: str) -> WebhookEndpoint:
    """Change an endpoint."""
    context = context_of(request)
    changes = from_wire_changes(await read_json(request, UpdateWebhookEndpointRequest))
    if changes.url is not None:
        await context.sender.check(changes.url)
    endpoint = await run_in_threadpool(
        webhooks.change_endpoint, context.database, caller.tenant, endpoint_id, changes
    )
    return to_wire_endpoint(endpoint)


@router.delete(_ENDPOINT)
async def delete(
    request: Request, caller: CallerDependency, endpoint_id: str
) -> WebhookEndpointDeleted:
    """Remove an endpoint, and what is on its way to it."""
    await run_in_threadpool(
        webhooks.delete_endpoint, context_of(request).database, caller.tenant, endpoint_id
    )
    return WebhookEndpointDeleted(id=endpoint_id)


@router.post(_ENDPOINT + "/rotate_secret", openapi_extra=documented(RotateWebhookSecretRequest))
async def rotate_secret(
    request: Request, caller: CallerDependency, endpoint_id: str
) -> WebhookEndpointWithSecret | WebhookEndpoint:
    """Give an endpoint a new secret, which is shown this once."""
    context = context_of(request)
    body = await read_json(request, RotateWebhookSecretRequest)
    try:
        endpoint = await run_in_threadpool(
            webhooks.rotate_secret,
            context.database,
            caller.tenant,
            endpoint_id,
            keep_old=body.keep_old_secret_active_for_24_hours,
            once=once_key(request, body),
        )
    except AlreadyDone as done:
        return to_wire_endpoint(
            await run_in_threadpool(
                webhooks.get_endpoint, context.database, caller.tenant, done.object_id
            )
        )
    return to_wire_endpoint_with_secret(endpoint)


@router.post(_ENDPOINT + "/test", openapi_extra=documented(TestWebhookEndpointRequest))
async def test(request: Request, caller: CallerDependency, endpoint_id: str) -> WebhookEndpointTest:
    """Send an endpoint a sample event now, and return what it answered."""
    context = context_of(request)
    body = await read_json(request, TestWebhookEndpointRequest)
    event_type = from_wire_event_type(body.event_type, "event_type")
    endpoint = await run_in_threadpool(
        webhooks.get_endpoint, context.database, caller.tenant, endpoint_id
    )
    status = await deliveries.send_sample(context.sender, endpoint, event_type)
    return WebhookEndpointTest(
        event_type=event_type, status_code=status, webhook_endpoint_id=endpoint.id
    )


@router.get("/webhook_event_types")
async def event_types(request: Request, caller: CallerDependency) -> WebhookEventTypeList:
    """List the events that are sent."""
    return WebhookEventTypeList(data=list(EventType))
