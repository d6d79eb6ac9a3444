"""Deliveries: signed so that the SDK accepts them, tried again for three days, then dropped."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Mapping

import openai
import pytest
from openai.types.webhooks import BatchExpiredWebhookEvent, FineTuningJobFailedWebhookEvent

from support.rows import OURS
from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.delivery import NotDelivered
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.domain.webhooks import GIVE_UP_S, Delivery, Endpoint, EventType
from tunery.services import deliveries, webhooks
from tunery.services.webhooks import EndpointChanges
from tunery.storage.database import Database
from tunery.storage.tables import tasks

URL = "https://hooks.example.com/in"
EMITTED = 1_700_000_000
SDK = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:1/v1")


def emitted(database: Database) -> tuple[Endpoint, Task]:
    """Return an endpoint, and the task of an event on its way to it."""
    endpoint = webhooks.create_endpoint(
        database, OURS, name="mine", url=URL, event_types=(EventType.JOB_FAILED,)
    )
    with database.write() as tx:
        webhooks.emit(tx, OURS, EventType.JOB_FAILED, "ftjob-1", EMITTED)
    return endpoint, claim(database)


def claim(database: Database) -> Task:
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(run_after=0))
        task = tx.queue.claim([TaskKind.DELIVER_WEBHOOK], 60)
    assert task is not None
    return task


def delivery_of(database: Database, task: Task) -> Delivery | None:
    with database.read() as tx:
        return tx.webhooks(OURS).delivery(task.subject)


def task_rows(database: Database) -> list[tuple[str, float]]:
    """Return state and time to wait of every task."""
    with database.read() as tx:
        rows = tx._connection.execute(tasks.select()).all()
    return [(row.state, row.run_after - time.time()) for row in rows]


def test_a_signature_is_that_of_standard_webhooks() -> None:
    # The example of the specification's own test suite.
    headers = deliveries.signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers == {
        "content-type": "application/json",
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_the_sdk_accepts_a_letter_under_each_of_its_secrets_and_under_no_other(
    database: Database,
) -> None:
    endpoint, task = emitted(database)
    rotated = webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True)
    letter = deliveries.write_letter(database, task)
    assert letter is not None
    assert (letter.url, letter.attempt) == (URL, 1)
    assert len(letter.headers["webhook-signature"].split(" ")) == 2
    for secret in (endpoint.secret, rotated.secret):
        event = SDK.webhooks.unwrap(letter.body, letter.headers, secret=secret)
        assert isinstance(event, FineTuningJobFailedWebhookEvent)
        assert (event.id, event.created_at, event.data.id) == (
            letter.event_id,
            EMITTED,
            "ftjob-1",
        )
    other = "whsec_" + base64.b64encode(b"x" * 24).decode()
    for body, secret in ((letter.body, other), (letter.body + b" ", endpoint.secret)):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            SDK.webhooks.unwrap(body, letter.headers, secret=secret)


def test_a_letter_is_written_anew_with_the_same_id_and_body_and_a_new_time(
    database: Database,
) -> None:
    endpoint, task = emitted(database)
    first = deliveries.write_letter(database, task, lambda: EMITTED + 1.9)
    webhooks.change_endpoint(
        database, OURS, endpoint.id, EndpointChanges(url="https://moved.example/")
    )
    second = deliveries.write_letter(database, task, lambda: EMITTED + 700.0)
    assert first is not None
    assert second is not None
    assert (first.event_id, first.body) == (second.event_id, second.body)
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == first.event_id
    assert first.headers["webhook-timestamp"] == str(EMITTED + 1)
    assert second.headers["webhook-timestamp"] == str(EMITTED + 700)
    assert second.url == "https://moved.example/"
    key = base64.b64decode(endpoint.secret.removeprefix("whsec_"))
    signed = f"{second.event_id}.{EMITTED + 700}.".encode() + second.body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert second.headers["webhook-signature"] == f"v1,{digest}"


def test_a_delivery_whose_endpoint_went_at_the_same_moment_is_dropped(database: Database) -> None:
    _, task = emitted(database)
    with database.write() as tx:
        tx._connection.exec_driver_sql("DELETE FROM webhook_endpoints")
    assert deliveries.write_letter(database, task) is None
    assert (delivery_of(database, task), task_rows(database)) == (None, [])


def test_a_delivery_that_was_taken_is_gone(database: Database) -> None:
    _, task = emitted(database)
    deliveries.finish(database, task)
    assert (delivery_of(database, task), task_rows(database)) == (None, [])


def test_a_delivery_that_was_not_taken_waits_and_is_counted(database: Database) -> None:
    _, task = emitted(database)
    for attempts, wait_s in enumerate([2.0, 12.0, 48.0], 1):
        found = deliveries.put_off(
            database, task, first_wait_s=1.0, jitter=2.0, clock=lambda: float(EMITTED)
        )
        assert found == wait_s
        delivery = delivery_of(database, task)
        assert delivery is not None
        assert delivery.attempts == attempts
        ((state, waits),) = task_rows(database)
        assert state == "queued"
        assert wait_s - 30 < waits < wait_s + 30  # the database's clock, give or take
        task = claim(database)


@pytest.mark.parametrize(("at", "again"), [(GIVE_UP_S - 5.0, True), (GIVE_UP_S - 4.9, False)])
def test_a_delivery_is_given_up_where_its_next_try_would_be_after_three_days(
    database: Database, at: float, again: bool
) -> None:
    _, task = emitted(database)
    found = deliveries.put_off(
        database, task, first_wait_s=5.0, jitter=1.0, clock=lambda: EMITTED + at
    )
    assert (found is not None) is again
    assert (delivery_of(database, task) is not None) is again
    assert len(task_rows(database)) == int(again)


def test_a_delivery_that_another_worker_has_is_left_to_it(database: Database) -> None:
    _, task = emitted(database)
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(lease_until=0))
    theirs = claim(database)
    with pytest.raises(LeaseLost):
        deliveries.finish(database, task)
    with pytest.raises(LeaseLost):
        deliveries.put_off(database, task, first_wait_s=1.0, jitter=1.0)
    delivery = delivery_of(database, task)
    assert delivery is not None
    assert delivery.attempts == 0
    deliveries.finish(database, theirs)


class Scripted:
    """Answers with a status, or fails."""

    def __init__(self, answer: int | Exception) -> None:
        self.answer = answer
        self.posted: list[tuple[str, Mapping[str, str], bytes]] = []

    async def check(self, url: str) -> None:
        raise AssertionError("not asked")

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.posted.append((url, headers, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("status", [200, 302, 500])
def test_a_sample_is_an_event_that_the_sdk_accepts(database: Database, status: int) -> None:
    endpoint, _ = emitted(database)
    sender = Scripted(status)
    assert asyncio.run(deliveries.send_sample(sender, endpoint, EventType.BATCH_EXPIRED)) == status
    ((url, headers, body),) = sender.posted
    event = SDK.webhooks.unwrap(body, headers, secret=endpoint.secret)
    assert url == URL
    assert isinstance(event, BatchExpiredWebhookEvent)
    assert event.data.id.startswith("batch_")


def test_a_sample_without_an_answer_is_the_callers_to_know(database: Database) -> None:
    endpoint, _ = emitted(database)
    with pytest.raises(InvalidRequest, match=r"^The test event was not delivered: no answer.$"):
        asyncio.run(
            deliveries.send_sample(
                Scripted(NotDelivered("no answer")), endpoint, EventType.JOB_FAILED
            )
        )
