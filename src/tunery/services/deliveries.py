"""Events delivered: signed as Standard Webhooks ask, at least once, for three days at most."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunery.domain.errors import InvalidRequest
from tunery.domain.ids import new_id
from tunery.domain.ports.delivery import NotDelivered, Sender
from tunery.domain.tasks import Task
from tunery.domain.webhooks import GIVE_UP_S, Endpoint, EventType, retry_wait_s
from tunery.services.webhooks import event_body
from tunery.storage.database import Database

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Letter:
    """One try of a delivery, ready to be sent."""

    event_id: str
    attempt: int  # from 1
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def write_letter(database: Database, task: Task, clock: Clock = time.time) -> Letter | None:
    """Return what a delivery's task is to send now; None where it is gone, and the task with it."""
    with database.read() as tx:
        delivery = tx.webhooks(task.tenant).delivery(task.subject)
        endpoint = None if delivery is None else tx.webhooks(task.tenant).get(delivery.endpoint_id)
    if delivery is None or endpoint is None:
        finish(database, task)
        return None
    body = delivery.body.encode()
    now = int(clock())
    return Letter(
        event_id=delivery.event_id,
        attempt=delivery.attempts + 1,
        url=endpoint.url,
        headers=signed_headers(endpoint.secrets_at(now), delivery.event_id, now, body),
        body=body,
    )


def finish(database: Database, task: Task) -> None:
    """Remove a delivery that was taken; raise LeaseLost if it is another worker's now."""
    with database.write() as tx:
        tx.queue.finish(task)
        tx.webhooks(task.tenant).delete_delivery(task.subject)


def put_off(
    database: Database,
    task: Task,
    *,
    first_wait_s: float,
    jitter: float,
    clock: Clock = time.time,
) -> float | None:
    """Have a delivery that was not taken tried again; return in how many seconds.

    Returns None where its three days are over: it is removed then. `jitter` stretches the wait, so
    that what failed together does not come back together. Raises LeaseLost if the delivery is
    another worker's now.
    """
    with database.write() as tx:
        tx.queue.hold(task)
        webhooks = tx.webhooks(task.tenant)
        delivery = webhooks.delivery(task.subject)
        if delivery is not None:
            wait_s = retry_wait_s(delivery.attempts + 1, first_wait_s) * jitter
            if clock() + wait_s <= delivery.created_at + GIVE_UP_S:
                webhooks.count_attempt(delivery.id)
                tx.queue.put_back(task, wait_s)
                return wait_s
            webhooks.delete_delivery(delivery.id)
        tx.queue.finish(task)
    return None


async def send_sample(
    sender: Sender, endpoint: Endpoint, event_type: EventType, clock: Clock = time.time
) -> int:
    """Send an event about an object that is not there; return the answer's status."""
    now = int(clock())
    event_id = new_id("evt_")
    body = event_body(event_id, event_type, new_id(event_type.id_prefix), now).encode()
    headers = signed_headers(endpoint.secrets_at(now), event_id, now, body)
    try:
        return await sender.post(endpoint.url, headers, body)
    except NotDelivered as error:
        raise InvalidRequest(
            f"The test event was not delivered: {error}.",
            param="url",
            code="webhook_test_failed",
        ) from None


def signed_headers(secrets: Sequence[str], event_id: str, now: int, body: bytes) -> dict[str, str]:
    """Return the headers of Standard Webhooks: a signature under each secret, newest first."""
    signed = b"%s.%d.%s" % (event_id.encode(), now, body)
    signatures = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        signatures.append(f"v1,{base64.b64encode(digest).decode()}")
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(signatures),
    }
