"""Webhook endpoints as their owners see them, and events put on their way to them."""

import base64
import dataclasses
import secrets
import time
from dataclasses import dataclass

import orjson

from tunery.domain.errors import InvalidRequest, NotFound
from tunery.domain.ids import new_id
from tunery.domain.once import OnceKey
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.domain.webhooks import (
    MAX_ENDPOINTS,
    MAX_OLD_SECRETS,
    OLD_SECRET_S,
    Delivery,
    Endpoint,
    EventType,
    OldSecret,
)
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Page
from tunery.storage.transaction import Transaction

_SECRET_BYTES = 36  # in base64 without padding


@dataclass(frozen=True, slots=True)
class EndpointChanges:
    """What is to be different about an endpoint; None leaves a thing as it is."""

    name: str | None = None
    url: str | None = None
    event_types: tuple[EventType, ...] | None = None


def create_endpoint(
    database: Database,
    tenant: Tenant,
    *,
    name: str,
    url: str,
    event_types: tuple[EventType, ...],
    once: OnceKey | None = None,
) -> Endpoint:
    """Make an endpoint with a secret of its own. Raises AlreadyDone under a known key."""
    now = int(time.time())
    endpoint = Endpoint(
        id=new_id("we_"),
        name=name,
        url=url,
        event_types=event_types,
        secret=_new_secret(),
        old_secrets=(),
        created_at=now,
        updated_at=now,
    )
    with database.write() as tx:
        tx.once(tenant).record(once, endpoint.id, now)
        webhooks = tx.webhooks(tenant)
        if webhooks.count() >= MAX_ENDPOINTS:
            raise InvalidRequest(
                f"This project has {MAX_ENDPOINTS} webhook endpoints, and no more are taken;"
                " delete one first.",
                code="webhook_endpoint_limit",
            )
        webhooks.add(endpoint)
    return endpoint


def find_endpoint(
    tx: Transaction, tenant: Tenant, endpoint_id: str, *, lock: bool = False
) -> Endpoint:
    """Return an endpoint, or raise NotFound."""
    endpoint = tx.webhooks(tenant).get(endpoint_id, lock=lock)
    if endpoint is None:
        raise NotFound(f"No such webhook endpoint: {endpoint_id[:200]}", param="id")
    return endpoint


def get_endpoint(database: Database, tenant: Tenant, endpoint_id: str) -> Endpoint:
    """Return an endpoint."""
    with database.read() as tx:
        return find_endpoint(tx, tenant, endpoint_id)


def list_endpoints(
    database: Database, tenant: Tenant, *, after: str | None, limit: int
) -> Page[Endpoint]:
    """Return a page of endpoints, newest first."""
    with database.read() as tx:
        return tx.webhooks(tenant).page(after=after, limit=limit)


def change_endpoint(
    database: Database, tenant: Tenant, endpoint_id: str, changes: EndpointChanges
) -> Endpoint:
    """Change an endpoint. What is on its way already goes to its new URL."""
    with database.write() as tx:
        endpoint = find_endpoint(tx, tenant, endpoint_id, lock=True)
        changed = dataclasses.replace(
            endpoint,
            name=endpoint.name if changes.name is None else changes.name,
            url=endpoint.url if changes.url is None else changes.url,
            event_types=(
                endpoint.event_types if changes.event_types is None else changes.event_types
            ),
        )
        if changed == endpoint:
            return endpoint
        changed = dataclasses.replace(changed, updated_at=int(time.time()))
        tx.webhooks(tenant).change(changed)
    return changed


def delete_endpoint(database: Database, tenant: Tenant, endpoint_id: str) -> None:
    """Remove an endpoint and everything on its way to it."""
    with database.write() as tx:
        find_endpoint(tx, tenant, endpoint_id)
        tx.webhooks(tenant).delete(endpoint_id)


def rotate_secret(
    database: Database,
    tenant: Tenant,
    endpoint_id: str,
    *,
    keep_old: bool,
    once: OnceKey | None = None,
) -> Endpoint:
    """Give an endpoint a new secret; the old one signs beside it for a day if it is kept.

    Where it is not kept, no older secret signs any more. Raises AlreadyDone under a known key.
    """
    now = int(time.time())
    with database.write() as tx:
        tx.once(tenant).record(once, endpoint_id, now)
        endpoint = find_endpoint(tx, tenant, endpoint_id, lock=True)
        old_secrets: tuple[OldSecret, ...] = ()
        if keep_old:
            active = tuple(old for old in endpoint.old_secrets if old.until > now)
            if len(active) >= MAX_OLD_SECRETS:
                raise InvalidRequest(
                    f"This endpoint has {len(active)} old secrets that are still active, and no"
                    " more are kept; rotate without keep_old_secret_active_for_24_hours, or wait.",
                    param="keep_old_secret_active_for_24_hours",
                )
            old_secrets = (OldSecret(endpoint.secret, now + OLD_SECRET_S), *active)
        rotated = dataclasses.replace(
            endpoint, secret=_new_secret(), old_secrets=old_secrets, updated_at=now
        )
        tx.webhooks(tenant).change(rotated)
    return rotated


def emit(tx: Transaction, tenant: Tenant, event_type: EventType, object_id: str, now: int) -> None:
    """Tell the project's endpoints of an object's end, in the transaction that ends it."""
    endpoints = tx.webhooks(tenant).subscribed(event_type)
    if not endpoints:
        return
    event_id = new_id("evt_")
    body = event_body(event_id, event_type, object_id, now)
    for endpoint in endpoints:
        delivery = Delivery(
            id=new_id("whd_"),
            endpoint_id=endpoint.id,
            event_id=event_id,
            event_type=event_type,
            body=body,
            attempts=0,
            created_at=now,
        )
        tx.webhooks(tenant).add_delivery(delivery)
        tx.queue.add(tenant, TaskKind.DELIVER_WEBHOOK, delivery.id)


def event_body(event_id: str, event_type: EventType, object_id: str, now: int) -> str:
    """Return an event as it is sent."""
    event = {
        "object": "event",
        "id": event_id,
        "type": event_type,
        "created_at": now,
        "data": {"id": object_id},
    }
    return orjson.dumps(event).decode()


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
