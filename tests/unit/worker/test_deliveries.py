"""The courier: real receivers on loopback, real rows; nobody waits for a dead receiver."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import openai
import pytest
import structlog
from openai.types.webhooks import FineTuningJobSucceededWebhookEvent

from support.receivers import Answer, Receiver, receiving
from support.rows import OURS, THEIRS, wait_for
from tunery.domain.ports.delivery import Sender
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.domain.webhooks import Endpoint, EventType
from tunery.outgoing.addresses import Guard
from tunery.outgoing.client import GuardedSender
from tunery.services import webhooks
from tunery.storage.database import Database
from tunery.storage.tables import tasks, webhook_deliveries
from tunery.telemetry import logger
from tunery.worker import deliveries as deliveries_module
from tunery.worker.deliveries import PER_ENDPOINT, Courier

KIND = EventType.JOB_SUCCEEDED
SDK = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:1/v1")


@contextmanager
def delivering(
    database: Database, sender: Sender | None = None, first_wait_s: float = 0.02
) -> Iterator[threading.Event]:
    """Run a courier for a block; yield what stops it."""
    courier = Courier(
        database,
        sender or GuardedSender(Guard(allow_private=True)),
        first_wait_s=first_wait_s,
        lease_s=60,
        poll_s=0.01,
        log=logger(),
    )
    stopping = threading.Event()
    thread = threading.Thread(target=courier.run, args=(stopping,))
    thread.start()
    try:
        yield stopping
    finally:
        stopping.set()
        thread.join()


def endpoint_at(database: Database, url: str, tenant: Tenant = OURS) -> Endpoint:
    return webhooks.create_endpoint(database, tenant, name="x", url=url, event_types=(KIND,))


def emit(database: Database, *object_ids: str, tenant: Tenant = OURS) -> None:
    with database.write() as tx:
        for object_id in object_ids:
            webhooks.emit(tx, tenant, KIND, object_id, 2_000_000_000)


def states(database: Database) -> list[str]:
    """Return the states of the tasks; there are as many deliveries."""
    with database.read() as tx:
        found = [row.state for row in tx._connection.execute(tasks.select())]
        assert len(tx._connection.execute(webhook_deliveries.select()).all()) == len(found)
    return found


def wait_until_done(database: Database) -> None:
    wait_for(lambda: states(database) == [], "the end of every delivery")


def attempts(database: Database) -> list[int]:
    with database.read() as tx:
        return [row.attempts for row in tx._connection.execute(webhook_deliveries.select())]


def test_an_event_is_delivered_once_as_the_sdk_takes_it(database: Database) -> None:
    with receiving(Answer(204)) as receiver, delivering(database):
        endpoint = endpoint_at(database, receiver.url)
        emit(database, "ftjob-1")
        wait_until_done(database)
    (received,) = receiver.received
    event = SDK.webhooks.unwrap(received.body, received.headers, secret=endpoint.secret)
    assert isinstance(event, FineTuningJobSucceededWebhookEvent)
    assert (event.id, event.data.id) == (received.event_id, "ftjob-1")


def test_what_is_refused_is_sent_again_the_same_until_it_is_taken(database: Database) -> None:
    with receiving() as elsewhere:
        refusals = [Answer(500), Answer(307, {"location": elsewhere.url}), Answer(404)]
        with receiving(*refusals) as receiver, delivering(database):
            endpoint = endpoint_at(database, receiver.url)
            emit(database, "ftjob-1")
            wait_until_done(database)
    assert elsewhere.received == []
    assert len(receiver.received) == 4
    assert len({(one.event_id, one.body) for one in receiver.received}) == 1
    for received in receiver.received:
        SDK.webhooks.unwrap(received.body, received.headers, secret=endpoint.secret)


def test_a_receiver_that_is_not_there_yet_gets_its_event_when_it_is(database: Database) -> None:
    with receiving() as gone:
        port = gone.port
    with delivering(database):
        endpoint_at(database, f"http://127.0.0.1:{port}/hook")
        emit(database, "ftjob-1")
        wait_for(lambda: attempts(database) >= [2], "two attempts in vain")
        with receiving(port=port) as receiver:
            wait_until_done(database)
    assert len(receiver.received) == 1


def test_an_address_that_is_forbidden_by_now_is_not_asked_and_tried_again(
    database: Database,
) -> None:
    strict = GuardedSender(Guard(allow_private=False))
    with receiving() as receiver, delivering(database, strict):
        endpoint_at(database, receiver.url)
        emit(database, "ftjob-1")
        wait_for(lambda: attempts(database) >= [2], "two attempts in vain")
        assert receiver.received == []
    with receiving(port=receiver.port) as receiver, delivering(database):
        wait_until_done(database)
    assert len(receiver.received) == 1


@contextmanager
def hanging() -> Iterator[tuple[Receiver, Callable[[], None]]]:
    """Run a receiver that answers nothing until it is released."""
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    with receiving(always=Answer(before=hang)) as receiver:
        try:
            yield receiver, release.set
        finally:
            release.set()


def test_a_dead_receiver_holds_up_no_other(database: Database) -> None:
    with hanging() as (dead, release), receiving() as alive, delivering(database):
        endpoint_at(database, dead.url)
        emit(database, *(f"ftjob-{number}" for number in range(40)))
        dead.wait(PER_ENDPOINT)
        endpoint_at(database, alive.url)
        emit(database, "ftjob-last")
        (received,) = alive.wait(1)
        assert b"ftjob-last" in received.body
        assert len(dead.received) == PER_ENDPOINT
        release()
        wait_until_done(database)
    assert len(dead.received) == 41


def test_a_project_of_dead_receivers_holds_up_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries_module, "PER_PROJECT", 3)
    with hanging() as (dead, release), receiving() as alive, delivering(database):
        for _ in range(3):
            endpoint_at(database, dead.url)
        emit(database, "ftjob-1", "ftjob-2")
        dead.wait(3)
        endpoint_at(database, alive.url, THEIRS)
        emit(database, "ftjob-3", tenant=THEIRS)
        alive.wait(1)
        assert len(dead.received) == 3
        release()
        wait_until_done(database)
    assert len(dead.received) == 6


def test_an_endpoint_that_goes_during_a_delivery_gets_no_other(database: Database) -> None:
    with hanging() as (receiver, release), delivering(database):
        endpoint = endpoint_at(database, receiver.url)
        emit(database, *(f"ftjob-{number}" for number in range(PER_ENDPOINT + 1)))
        receiver.wait(PER_ENDPOINT)
        webhooks.delete_endpoint(database, OURS, endpoint.id)
        assert states(database) == []
        release()
        with receiving() as other:
            endpoint_at(database, other.url)
            emit(database, "ftjob-last")
            wait_until_done(database)
    assert (len(receiver.received), len(other.received)) == (PER_ENDPOINT, 1)
    assert states(database) == []


def test_a_worker_that_stops_gives_back_what_it_has_under_way(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries_module, "_STOP_S", 0.01)
    with hanging() as (receiver, _):
        with delivering(database):
            endpoint_at(database, receiver.url)
            emit(database, "ftjob-1")
            receiver.wait(1)
            assert states(database) == ["running"]
        assert states(database) == ["queued"]
        with database.read() as tx:
            assert tx.deliveries(busy_projects=[], busy_endpoints=[]).has_free()
        assert attempts(database) == [0]


def test_what_a_killed_worker_had_under_way_is_delivered_again(database: Database) -> None:
    with receiving() as receiver:
        endpoint_at(database, receiver.url)
        emit(database, "ftjob-1")
        with database.write() as tx:
            assert tx.queue.claim([TaskKind.DELIVER_WEBHOOK], 0.0) is not None
        with delivering(database):
            wait_until_done(database)
    assert len(receiver.received) == 1


def test_a_bug_in_one_delivery_is_a_try_in_vain_and_stops_no_lane(database: Database) -> None:
    inner = GuardedSender(Guard(allow_private=True))

    class Buggy:
        failures = 2

        async def check(self, url: str) -> None:
            raise AssertionError("not asked")

        async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
            if self.failures:
                self.failures -= 1
                raise ZeroDivisionError
            assert attempts(database) == [2]
            return await inner.post(url, headers, body)

    with receiving() as receiver, delivering(database, Buggy()):
        endpoint_at(database, receiver.url)
        emit(database, "ftjob-1")
        wait_until_done(database)
    assert len(receiver.received) == 1


def test_the_log_tells_of_deliveries_by_id_only(database: Database) -> None:
    with (
        structlog.testing.capture_logs() as lines,
        receiving(Answer(500, body=b"a-secret-answer")) as receiver,
        delivering(database),
    ):
        endpoint = endpoint_at(database, f"{receiver.url}?key=a-secret-key")
        emit(database, "ftjob-secret")
        wait_until_done(database)
        wait_for(lambda: len(lines) == 2, "both attempts in the log")
    put_off, delivered = lines
    event_id = receiver.received[0].event_id
    assert (put_off["event"], put_off["why"]) == ("delivery put off", "answered 500")
    assert (delivered["event"], delivered["status"], delivered["attempt"]) == ("delivered", 200, 2)
    for line in lines:
        assert line["endpoint"] == endpoint.id
        assert line["delivery_event"] == event_id
        text = repr(line)
        for hidden in ("a-secret", "127.0.0.1", "ftjob-", "whsec_", endpoint.secret):
            assert hidden not in text


def test_rows_that_cannot_be_read_stop_no_lane(database: Database) -> None:
    with receiving() as receiver, delivering(database):
        endpoint_at(database, receiver.url)
        with database.write() as tx:
            webhooks.emit(tx, OURS, KIND, "ftjob-1", 2_000_000_000)
            tx._connection.execute(webhook_deliveries.update().values(event_type="of the future"))
        emit(database, "ftjob-2")
        (received,) = receiver.wait(1)
    assert b"ftjob-2" in received.body
    assert "queued" in states(database)
