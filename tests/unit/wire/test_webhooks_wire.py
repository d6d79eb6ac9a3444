"""Webhook endpoints on the wire: types that are sent, others by name, secrets shown when asked."""

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.domain.webhooks import Endpoint, EventType
from tunery.protocol.webhooks import UpdateWebhookEndpointRequest
from tunery.services.webhooks import EndpointChanges
from tunery.wire.requests import from_wire_value
from tunery.wire.webhooks import (
    from_wire_changes,
    from_wire_event_types,
    to_wire_endpoint,
    to_wire_endpoint_with_secret,
)

ENDPOINT = Endpoint(
    id="we_1",
    name="mine",
    url="https://hooks.example.com/",
    event_types=(EventType.JOB_FAILED, EventType.BATCH_EXPIRED),
    secret="whsec_abcdefgh",
    old_secrets=(),
    created_at=1,
    updated_at=2,
)
SHOWN = {
    "id": "we_1",
    "object": "webhook_endpoint",
    "created_at": 1,
    "updated_at": 2,
    "name": "mine",
    "url": "https://hooks.example.com/",
    "event_types": ["fine_tuning.job.failed", "batch.expired"],
    "signing_secret_hint": "whsec_...efgh",
}


def test_an_endpoint_is_shown_without_its_secret_unless_that_is_asked_for() -> None:
    assert to_wire_endpoint(ENDPOINT).model_dump() == SHOWN
    shown = {**SHOWN, "signing_secret": "whsec_abcdefgh"}
    assert to_wire_endpoint_with_secret(ENDPOINT).model_dump() == shown


def test_types_are_taken_once_in_their_order() -> None:
    given = ["batch.failed", "response.completed", "batch.failed"]
    assert from_wire_event_types(given) == (EventType.BATCH_FAILED, EventType.RESPONSE_COMPLETED)


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("eval.run.succeeded", "unsupported_value", "'eval.run.succeeded' events are not sent by"),
        ("video.completed", "unsupported_value", "'video.completed' events are not sent by"),
        ("safety.alert.created", "unsupported_value", "are not sent by this server; it sends"),
        ("fine_tuning.job.paused", "invalid_value", "'fine_tuning.job.paused' is no event type"),
        ("", "invalid_value", "fine_tuning.job.succeeded, fine_tuning.job.failed"),
    ],
)
def test_a_type_that_is_not_sent_is_refused_by_its_name(
    value: str, code: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        from_wire_event_types(["batch.failed", value])
    assert (caught.value.param, caught.value.code) == ("event_types.1", code)


def test_changes_hold_what_was_given_and_null_is_none_of_them() -> None:
    def changes(**body: object) -> EndpointChanges:
        return from_wire_changes(from_wire_value(body, UpdateWebhookEndpointRequest))

    assert changes() == EndpointChanges()
    assert changes(name="new") == EndpointChanges(name="new")
    assert changes(url="https://a.example/", event_types=["batch.failed"]) == EndpointChanges(
        url="https://a.example/", event_types=(EventType.BATCH_FAILED,)
    )
    for name in ("name", "url", "event_types"):
        with pytest.raises(InvalidRequest, match="null") as caught:
            changes(**{name: None})
        assert (caught.value.param, caught.value.code) == (name, "invalid_value")
