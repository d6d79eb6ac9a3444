"""Webhooks as a user meets them: the SDK makes endpoints, a real receiver verifies events."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.webhooks import (
    BatchCompletedWebhookEvent,
    FineTuningJobCancelledWebhookEvent,
    FineTuningJobFailedWebhookEvent,
    FineTuningJobSucceededWebhookEvent,
)

from support.receivers import Answer, Received, receiving
from support.server import BASE, Server, chat_lines, method, tuned_model, upload

pytestmark = pytest.mark.slow

ENDPOINTS = "/v1/webhook_endpoints"
ELSEWHERE = "https://93.184.215.14/in"  # public, and never asked here
CANCELLED: Any = "fine_tuning.job.cancelled"
EVENT_TYPES: list[Any] = [
    *(f"fine_tuning.job.{end}" for end in ("succeeded", "failed", "cancelled")),
    *(f"batch.{end}" for end in ("completed", "failed", "expired", "cancelled")),
    *(f"response.{end}" for end in ("completed", "failed", "cancelled", "incomplete")),
]


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server of this module's own, which may send to loopback."""
    settings = {"TUNERY_WEBHOOKS__ALLOW_PRIVATE": "true", "TUNERY_WEBHOOKS__RETRY_S": "0.1"}
    with Server(tmp_path_factory.mktemp("webhooks"), models, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def training_file(client: OpenAI) -> str:
    return upload(client, chat_lines(12)).id


@pytest.fixture(autouse=True)
def no_endpoints(client: OpenAI) -> Iterator[None]:
    yield
    for endpoint in client.webhooks.list(limit=100):
        client.webhooks.delete(endpoint.id)


def cancel_a_job(client: OpenAI, training_file: str) -> str:
    """Make a job and cancel it; return its id."""
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file)
    client.fine_tuning.jobs.cancel(job.id)
    return job.id


def unwrapped(client: OpenAI, received: Received, secret: str) -> Any:
    return client.webhooks.unwrap(received.body, received.headers, secret=secret)


# ---- events


def test_a_job_that_succeeds_is_told_of(client: OpenAI, training_file: str) -> None:
    with receiving() as receiver:
        endpoint = client.webhooks.create(name="all", url=receiver.url, event_types=EVENT_TYPES)
        job = client.fine_tuning.jobs.create(
            model=BASE, training_file=training_file, method=method(n_epochs=1)
        )
        tuned_model(client, job.id)
        (received,) = receiver.wait(1)
    event = unwrapped(client, received, endpoint.signing_secret)
    assert isinstance(event, FineTuningJobSucceededWebhookEvent)
    finished_at = client.fine_tuning.jobs.retrieve(job.id).finished_at
    assert (event.data.id, event.created_at, event.object) == (job.id, finished_at, "event")
    assert event.id == received.headers["webhook-id"]
    assert event.id.startswith("evt_")


def test_jobs_that_fail_or_are_cancelled_are_told_of_to_who_asked(
    client: OpenAI, training_file: str
) -> None:
    short = upload(client, chat_lines(3)).id
    with receiving() as failures, receiving() as cancellations, receiving() as batches:
        for_failures = client.webhooks.create(
            name="failures", url=failures.url, event_types=["fine_tuning.job.failed"]
        )
        for_cancellations = client.webhooks.create(
            name="cancellations", url=cancellations.url, event_types=[CANCELLED]
        )
        client.webhooks.create(name="b", url=batches.url, event_types=["batch.completed"])
        failed = client.fine_tuning.jobs.create(model=BASE, training_file=short).id
        cancelled = cancel_a_job(client, training_file)
        (one,), (other,) = failures.wait(1), cancellations.wait(1)
    event = unwrapped(client, one, for_failures.signing_secret)
    assert isinstance(event, FineTuningJobFailedWebhookEvent)
    assert event.data.id == failed
    event = unwrapped(client, other, for_cancellations.signing_secret)
    assert isinstance(event, FineTuningJobCancelledWebhookEvent)
    assert event.data.id == cancelled
    assert batches.received == []


def test_an_event_that_is_refused_twice_comes_a_third_time_the_same(
    client: OpenAI, training_file: str
) -> None:
    with receiving(Answer(500), Answer(500)) as receiver:
        endpoint = client.webhooks.create(name="x", url=receiver.url, event_types=[CANCELLED])
        job_id = cancel_a_job(client, training_file)
        received = receiver.wait(3)
    assert len({(one.event_id, one.body) for one in received}) == 1
    for one in received:
        assert unwrapped(client, one, endpoint.signing_secret).data.id == job_id


def test_both_secrets_sign_while_the_old_one_is_kept(client: OpenAI, training_file: str) -> None:
    with receiving() as receiver:
        first = client.webhooks.create(name="x", url=receiver.url, event_types=[CANCELLED])
        second = client.webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
        cancel_a_job(client, training_file)
        (both,) = receiver.wait(1)
        third = client.webhooks.rotate_secret(first.id)
        cancel_a_job(client, training_file)
        alone = receiver.wait(2)[1]
    assert len({one.signing_secret for one in (first, second, third)}) == 3
    signatures = both.headers["webhook-signature"].split(" ")
    assert [one.partition(",")[0] for one in signatures] == ["v1", "v1"]
    for secret in (first.signing_secret, second.signing_secret):
        assert unwrapped(client, both, secret).type == CANCELLED
    assert unwrapped(client, alone, third.signing_secret).type == CANCELLED
    for secret in (first.signing_secret, second.signing_secret):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            unwrapped(client, alone, secret)


def test_an_event_that_a_killed_worker_was_sending_is_sent_again(
    server: Server, client: OpenAI, training_file: str
) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    with receiving(Answer(before=hang)) as receiver:
        client.webhooks.create(name="x", url=receiver.url, event_types=[CANCELLED])
        cancel_a_job(client, training_file)
        receiver.wait(1)
        server.child("work").send(signal.SIGKILL)
        release.set()
        one, other = receiver.wait(2)
    assert (one.event_id, one.body) == (other.event_id, other.body)


# ---- endpoints


def test_an_endpoint_is_made_read_changed_and_deleted(client: OpenAI) -> None:
    made = client.webhooks.create(name="mine", url=ELSEWHERE, event_types=["batch.failed"])
    assert made.object == "webhook_endpoint"
    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret_hint is not None
    assert made.signing_secret_hint[-4:] == made.signing_secret[-4:]
    assert len(made.signing_secret_hint) < 16
    read = client.webhooks.retrieve(made.id)
    assert "signing_secret" not in read.to_dict()
    assert {**read.to_dict(), "signing_secret": made.signing_secret} == made.to_dict()
    changed = client.webhooks.update(made.id, name="new", event_types=EVENT_TYPES)
    assert (changed.name, changed.url, changed.event_types) == ("new", ELSEWHERE, EVENT_TYPES)
    assert client.webhooks.retrieve(made.id) == changed
    deleted = client.webhooks.delete(made.id)
    assert deleted.to_dict() == {
        "id": made.id,
        "object": "webhook_endpoint.deleted",
        "deleted": True,
    }
    with pytest.raises(openai.NotFoundError, match=f"No such webhook endpoint: {made.id}"):
        client.webhooks.retrieve(made.id)


def test_endpoints_are_listed_in_pages(client: OpenAI) -> None:
    made = [
        client.webhooks.create(name=str(number), url=ELSEWHERE, event_types=["batch.failed"]).id
        for number in range(3)
    ]
    assert [one.id for one in client.webhooks.list(limit=2)] == made[::-1]
    page = client.webhooks.list(limit=2)
    assert ([one.id for one in page.data], page.has_more) == ([made[2], made[1]], True)
    assert "signing_secret" not in page.data[0].to_dict()


def test_the_types_of_events_are_those_that_are_sent(client: OpenAI) -> None:
    assert client.webhooks.event_types.list().to_dict() == {
        "object": "list",
        "data": EVENT_TYPES,
    }


def test_a_repeated_request_is_answered_without_the_secret(server: Server) -> None:
    http = server.http()
    body = {"name": "x", "url": ELSEWHERE, "event_types": ["batch.failed"]}
    headers = {"idempotency-key": "create-one"}
    first, again = (http.post(ENDPOINTS, json=body, headers=headers).json() for _ in range(2))
    assert "signing_secret" in first
    assert {**again, "signing_secret": first["signing_secret"]} == first
    assert "signing_secret" not in again
    path, headers = f"{ENDPOINTS}/{first['id']}/rotate_secret", {"idempotency-key": "rotate-one"}
    rotated, again = (http.post(path, json={}, headers=headers).json() for _ in range(2))
    assert rotated["signing_secret"] != first["signing_secret"]
    assert "signing_secret" not in again
    assert again["signing_secret_hint"] == rotated["signing_secret_hint"]


def test_another_projects_endpoint_answers_as_an_unknown_one(
    server: Server, client: OpenAI
) -> None:
    endpoint = client.webhooks.create(name="x", url=ELSEWHERE, event_types=["batch.failed"])
    stranger = server.http(server.new_key("--new-project", "stranger")[1])
    unknown = "we_" + "0" * 24

    def answer(verb: str, end: str, body: Any, endpoint_id: str) -> tuple[int, str]:
        response = stranger.request(verb, f"{ENDPOINTS}{end.replace('*', endpoint_id)}", json=body)
        return response.status_code, response.text.replace(endpoint_id, "*")

    for verb, end, body in (
        ("GET", "/*", None),
        ("POST", "/*", {"name": "taken"}),
        ("POST", "/*/rotate_secret", {}),
        ("POST", "/*/test", {"event_type": "batch.failed"}),
        ("DELETE", "/*", None),
        ("GET", "?after=*", None),
    ):
        status, text = answer(verb, end, body, endpoint.id)
        assert status in (400, 404), text
        assert (status, text) == answer(verb, end, body, unknown)
    assert stranger.get(ENDPOINTS).json()["data"] == []
    assert client.webhooks.retrieve(endpoint.id).updated_at == endpoint.updated_at


# ---- samples


@pytest.mark.parametrize("status", [200, 302, 503])
def test_a_sample_is_sent_at_once_and_its_answer_told(client: OpenAI, status: int) -> None:
    with receiving(Answer(status, {"location": ELSEWHERE})) as receiver:
        endpoint = client.webhooks.create(name="x", url=receiver.url, event_types=[CANCELLED])
        result = client.webhooks.test(endpoint.id, event_type="batch.completed")
        (received,) = receiver.received
    assert result.to_dict() == {
        "object": "webhook_endpoint.test",
        "event_type": "batch.completed",
        "status_code": status,
        "success": True,
        "webhook_endpoint_id": endpoint.id,
    }
    event = unwrapped(client, received, endpoint.signing_secret)
    assert isinstance(event, BatchCompletedWebhookEvent)


def test_a_sample_that_nobody_answers_is_an_error_that_says_why(client: OpenAI) -> None:
    with receiving() as gone:
        endpoint = client.webhooks.create(name="x", url=gone.url, event_types=[CANCELLED])
    with pytest.raises(openai.BadRequestError, match="no connection could be made") as caught:
        client.webhooks.test(endpoint.id, event_type=CANCELLED)
    assert (caught.value.param, caught.value.code) == ("url", "webhook_test_failed")


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "message", "param", "code"),
    [
        ({"url": "ftp://a.example/"}, "needs to begin with", "url", "url_not_allowed"),
        ({"url": "https://a:b@a.example/"}, "user name", "url", "url_not_allowed"),
        ({"url": "http://169.254.169.254/x"}, "network link", "url", "url_not_allowed"),
        ({"url": "https://name.invalid/"}, "no address", "url", "url_not_resolved"),
        ({"url": "https://a.example/" + "x" * 2048}, "at most 2048", "url", "invalid_value"),
        ({"url": 5}, "valid string", "url", "invalid_value"),
        ({"name": ""}, "at least 1", "name", "invalid_value"),
        ({"name": "x" * 257}, "at most 256", "name", "invalid_value"),
        ({"event_types": []}, "at least 1", "event_types", "invalid_value"),
        ({"event_types": ["nothing"]}, "no event type", "event_types.0", "invalid_value"),
        (
            {"event_types": ["batch.failed", "eval.run.failed"]},
            "'eval.run.failed' events are not sent",
            "event_types.1",
            "unsupported_value",
        ),
        ({"secret": "whsec_mine"}, "Unrecognized", "secret", "unknown_parameter"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(
    server: Server, changes: dict[str, Any], message: str, param: str, code: str
) -> None:
    http = server.http()
    body = {"name": "x", "url": ELSEWHERE, "event_types": ["batch.failed"]}
    endpoint_id = http.post(ENDPOINTS, json=body).json()["id"]
    for path, value in ((ENDPOINTS, {**body, **changes}), (f"{ENDPOINTS}/{endpoint_id}", changes)):
        response = http.post(path, json=value)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (param, code)
        assert message in error["message"]
    assert http.get(f"{ENDPOINTS}/{endpoint_id}").json()["name"] == "x"
    assert len(http.get(ENDPOINTS).json()["data"]) == 1


@pytest.mark.parametrize(
    ("end", "body", "param"),
    [
        ("/rotate_secret", {"keep_old_secret_active_for_24_hours": "yes"}, "keep_old_secret"),
        ("/rotate_secret", {"keep": True}, "keep"),
        ("/test", {}, "event_type"),
        ("/test", {"event_type": "eval.run.failed"}, "event_type"),
        ("", {"name": None}, "name"),
    ],
)
def test_what_an_endpoint_cannot_be_asked(
    server: Server, end: str, body: dict[str, Any], param: str
) -> None:
    http = server.http()
    made = http.post(
        ENDPOINTS, json={"name": "x", "url": ELSEWHERE, "event_types": ["batch.failed"]}
    )
    response = http.post(f"{ENDPOINTS}/{made.json()['id']}{end}", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"].startswith(param)
