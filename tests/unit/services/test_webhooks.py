"""Webhook endpoints as their owners see them, and the events that are put on their way."""

import base64
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.databases import opened
from support.racing import Waiting
from support.rows import OURS, THEIRS, a_file, a_job
from tunery.domain.errors import InvalidRequest, NotFound
from tunery.domain.jobs import JobError, JobStatus
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.tasks import TaskKind
from tunery.domain.webhooks import MAX_ENDPOINTS, Delivery, Endpoint, EventType
from tunery.services import jobs, webhooks
from tunery.services.webhooks import EndpointChanges
from tunery.storage.database import Database
from tunery.storage.tables import Sealed, tasks, webhook_deliveries, webhook_endpoints

URL = "https://hooks.example.com/in"
ONCE = OnceKey(hashlib.sha256(b"key").digest(), hashlib.sha256(b"request").digest())


def create(database: Database, *event_types: EventType, **changes: Any) -> Endpoint:
    values: dict[str, Any] = {
        "tenant": OURS,
        "name": "mine",
        "url": URL,
        "event_types": event_types or (EventType.JOB_SUCCEEDED,),
    }
    return webhooks.create_endpoint(database, **{**values, **changes})


def deliveries(database: Database) -> list[Delivery]:
    """Return the project's deliveries that have a task, in the order of their tasks."""
    with database.read() as tx:
        rows = tx._connection.execute(tasks.select().order_by(tasks.c.id)).all()
        kinds = {row.kind for row in rows}
        found = [tx.webhooks(OURS).delivery(row.subject) for row in rows]
        assert len(tx._connection.execute(webhook_deliveries.select()).all()) == len(rows)
    assert kinds <= {TaskKind.DELIVER_WEBHOOK}
    return [one for one in found if one is not None]


def test_an_endpoint_is_made_with_a_secret_of_its_own(database: Database) -> None:
    before = int(time.time())
    one, other = create(database), create(database)
    assert webhooks.get_endpoint(database, OURS, one.id) == one
    assert one.id.startswith("we_")
    assert before <= one.created_at == one.updated_at
    for endpoint in (one, other):
        assert endpoint.secret.startswith("whsec_")
        assert len(base64.b64decode(endpoint.secret[6:], validate=True)) >= 24
    assert one.secret != other.secret


def test_anothers_endpoint_is_an_unknown_one(database: Database) -> None:
    endpoint = create(database)
    acts: list[Callable[[str], object]] = [
        lambda id: webhooks.get_endpoint(database, THEIRS, id),
        lambda id: webhooks.change_endpoint(database, THEIRS, id, EndpointChanges(name="x")),
        lambda id: webhooks.rotate_secret(database, THEIRS, id, keep_old=False),
        lambda id: webhooks.delete_endpoint(database, THEIRS, id),
    ]
    for act in acts:
        for endpoint_id in (endpoint.id, "we_unknown"):
            with pytest.raises(
                NotFound, match=f"^No such webhook endpoint: {endpoint_id}$"
            ) as caught:
                act(endpoint_id)
            assert caught.value.param == "id"
    assert webhooks.list_endpoints(database, THEIRS, after=None, limit=9).items == ()
    with pytest.raises(InvalidRequest, match="after"):
        webhooks.list_endpoints(database, THEIRS, after=endpoint.id, limit=9)
    assert webhooks.get_endpoint(database, OURS, endpoint.id) == endpoint


def test_a_list_is_newest_first_in_pages(database: Database) -> None:
    made = [create(database, name=str(number)) for number in range(3)]
    first = webhooks.list_endpoints(database, OURS, after=None, limit=2)
    assert (first.items, first.has_more) == ((made[2], made[1]), True)
    rest = webhooks.list_endpoints(database, OURS, after=made[1].id, limit=2)
    assert (rest.items, rest.has_more) == ((made[0],), False)


def test_a_project_has_so_many_endpoints_and_no_more(database: Database) -> None:
    made = [create(database) for _ in range(MAX_ENDPOINTS)]
    with pytest.raises(InvalidRequest, match="50 webhook endpoints") as caught:
        create(database, once=ONCE)
    assert caught.value.code == "webhook_endpoint_limit"
    create(database, tenant=THEIRS)
    webhooks.delete_endpoint(database, OURS, made[0].id)
    create(database, once=ONCE)  # a refused creation is not remembered


def test_a_creation_that_comes_again_makes_nothing(database: Database) -> None:
    endpoint = create(database, once=ONCE)
    with pytest.raises(AlreadyDone) as caught:
        create(database, once=ONCE)
    assert caught.value.object_id == endpoint.id
    assert len(webhooks.list_endpoints(database, OURS, after=None, limit=9).items) == 1


def test_what_is_not_changed_stays_and_only_a_change_is_dated(database: Database) -> None:
    with database.write() as tx:
        old = dataclasses.replace(create_row(), updated_at=5)
        tx.webhooks(OURS).add(old)

    def change(**changes: Any) -> Endpoint:
        changed = webhooks.change_endpoint(database, OURS, old.id, EndpointChanges(**changes))
        assert webhooks.get_endpoint(database, OURS, old.id) == changed
        return changed

    assert change() == old
    assert change(name=old.name, url=old.url, event_types=old.event_types) == old
    changed = change(name="new")
    assert changed.updated_at > 5
    assert changed == dataclasses.replace(old, name="new", updated_at=changed.updated_at)
    changed = change(url="https://other.example/", event_types=(EventType.BATCH_FAILED,))
    assert (changed.name, changed.url) == ("new", "https://other.example/")
    assert changed.event_types == (EventType.BATCH_FAILED,)
    assert (changed.secret, changed.created_at) == (old.secret, old.created_at)


def create_row() -> Endpoint:
    return Endpoint("we_row", "mine", URL, (EventType.JOB_FAILED,), "whsec_AAAA", (), 5, 5)


# ---- secrets


def test_a_rotated_secret_is_new_and_the_old_one_signs_no_more(database: Database) -> None:
    endpoint = create(database)
    rotated = webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=False)
    assert rotated.secret != endpoint.secret
    assert webhooks.get_endpoint(database, OURS, endpoint.id) == rotated
    assert rotated.secrets_at(int(time.time())) == (rotated.secret,)


def test_a_secret_that_is_kept_signs_for_a_day(database: Database) -> None:
    endpoint = create(database)
    before = int(time.time())
    second = webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True)
    third = webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True)
    after = int(time.time())
    assert third.secrets_at(before + 86399) == (third.secret, second.secret, endpoint.secret)
    assert third.secrets_at(after + 86400) == (third.secret,)
    last = webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=False)
    assert last.secrets_at(after) == (last.secret,)


def test_so_many_old_secrets_are_kept_and_then_a_rotation_has_to_say_so(
    database: Database,
) -> None:
    endpoint = create(database)
    for _ in range(4):
        kept = webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True)
    with pytest.raises(InvalidRequest, match="4 old secrets") as caught:
        webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True)
    assert caught.value.param == "keep_old_secret_active_for_24_hours"
    assert webhooks.get_endpoint(database, OURS, endpoint.id) == kept
    assert webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=False).old_secrets == ()


def test_a_rotation_that_comes_again_changes_nothing(database: Database) -> None:
    endpoint = create(database)
    rotated = webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True, once=ONCE)
    with pytest.raises(AlreadyDone) as caught:
        webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True, once=ONCE)
    assert caught.value.object_id == endpoint.id
    assert webhooks.get_endpoint(database, OURS, endpoint.id) == rotated


def test_what_tenants_write_and_what_signs_is_sealed() -> None:
    columns = [webhook_endpoints.c[name] for name in ("name", "url", "secret", "old_secrets")]
    for column in (*columns, webhook_deliveries.c.body):
        assert isinstance(column.type, Sealed)


# ---- events


def test_an_event_is_put_on_its_way_to_everybody_who_asked_for_its_type(
    database: Database,
) -> None:
    one = create(database, EventType.BATCH_FAILED, EventType.JOB_FAILED)
    create(database, EventType.BATCH_FAILED)
    two = create(database, EventType.JOB_FAILED)
    create(database, EventType.JOB_FAILED, tenant=THEIRS)
    with database.write() as tx:
        webhooks.emit(tx, OURS, EventType.JOB_FAILED, "ftjob-9", 1_700_000_000)
    found = deliveries(database)
    assert [delivery.endpoint_id for delivery in found] == [one.id, two.id]
    (event_id,) = {delivery.event_id for delivery in found}
    (body,) = {delivery.body for delivery in found}
    assert body == (
        f'{{"object":"event","id":"{event_id}","type":"fine_tuning.job.failed",'
        '"created_at":1700000000,"data":{"id":"ftjob-9"}}'
    )
    assert event_id.startswith("evt_")
    assert {(d.event_type, d.attempts, d.created_at) for d in found} == {
        (EventType.JOB_FAILED, 0, 1_700_000_000)
    }


def test_an_event_is_not_sent_where_what_it_tells_of_is_rolled_back(database: Database) -> None:
    create(database, EventType.JOB_FAILED)

    def fail() -> None:
        with database.write() as tx:
            webhooks.emit(tx, OURS, EventType.JOB_FAILED, "ftjob-9", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert deliveries(database) == []


def test_everything_on_its_way_to_an_endpoint_goes_with_it(database: Database) -> None:
    one = create(database, EventType.JOB_FAILED)
    two = create(database, EventType.JOB_FAILED)
    with database.write() as tx:
        webhooks.emit(tx, OURS, EventType.JOB_FAILED, "ftjob-1", 1)
        webhooks.emit(tx, OURS, EventType.JOB_FAILED, "ftjob-2", 1)
    webhooks.delete_endpoint(database, OURS, one.id)
    assert [delivery.endpoint_id for delivery in deliveries(database)] == [two.id, two.id]
    with pytest.raises(NotFound):
        webhooks.get_endpoint(database, OURS, one.id)


EVERY_END = (EventType.JOB_SUCCEEDED, EventType.JOB_FAILED, EventType.JOB_CANCELLED)


def told(database: Database) -> list[tuple[str, str]]:
    bodies = [json.loads(delivery.body) for delivery in deliveries(database)]
    return [(body["type"], body["data"]["id"]) for body in bodies]


def test_a_cancelled_job_is_told_of_once(database: Database) -> None:
    create(database, *EVERY_END)
    with database.write() as tx:
        tx.files(OURS).add(a_file())
        tx.jobs(OURS).add(a_job())
        tx.queue.add(OURS, TaskKind.PREPARE_JOB, "ftjob-1")
    jobs.cancel_job(database, OURS, "ftjob-1")
    with pytest.raises(InvalidRequest):
        jobs.cancel_job(database, OURS, "ftjob-1")
    assert told(database) == [("fine_tuning.job.cancelled", "ftjob-1")]


def test_a_failed_job_is_told_of(database: Database) -> None:
    create(database, *EVERY_END)
    with database.write() as tx:
        job = a_job(status=JobStatus.RUNNING)
        tx.jobs(OURS).add(job)
        jobs.fail_job(tx, OURS, job, JobError("why", "Because.", None))
    assert told(database) == [("fine_tuning.job.failed", "ftjob-1")]


def test_two_rotations_at_the_same_moment_lose_no_secret(postgresql_url: str) -> None:
    with opened(postgresql_url) as database:
        endpoint = create(database)
        with database.write() as tx:
            locked = tx.webhooks(OURS).get(endpoint.id, lock=True)
            assert locked is not None
            other = Waiting(
                lambda: webhooks.rotate_secret(database, OURS, endpoint.id, keep_old=True)
            )
            other.wait_for_lock(database)
            tx.webhooks(OURS).change(dataclasses.replace(locked, secret="whsec_first"))
        assert other.result() is None
        rotated = webhooks.get_endpoint(database, OURS, endpoint.id)
        assert rotated.secrets_at(int(time.time()))[1:] == ("whsec_first",)
