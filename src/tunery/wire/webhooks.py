"""Webhook endpoints."""

from collections.abc import Sequence

from tunery.domain.errors import InvalidRequest
from tunery.domain.webhooks import Endpoint, EventType
from tunery.protocol.webhooks import (
    UpdateWebhookEndpointRequest,
    WebhookEndpoint,
    WebhookEndpointWithSecret,
)
from tunery.services.webhooks import EndpointChanges

# OpenAI's events of things that this server does not tell of.
NOT_SENT = ("eval.run.", "realtime.", "video.", "agent.", "safety.")


def from_wire_event_type(value: str, param: str) -> EventType:
    """Return an event's type; raise InvalidRequest for one that is not sent."""
    if value in tuple(EventType):
        return EventType(value)
    sent = ", ".join(EventType)
    if value.startswith(NOT_SENT):
        raise InvalidRequest(
            f"Unsupported value: '{value[:80]}' events are not sent by this server; it sends"
            f" {sent}.",
            param=param,
            code="unsupported_value",
        )
    raise InvalidRequest(
        f"Invalid value: '{value[:80]}' is no event type; this server sends {sent}.",
        param=param,
        code="invalid_value",
    )


def from_wire_event_types(values: Sequence[str]) -> tuple[EventType, ...]:
    """Return the types of events, each once."""
    types = (
        from_wire_event_type(value, f"event_types.{index}") for index, value in enumerate(values)
    )
    return tuple(dict.fromkeys(types))


def from_wire_changes(body: UpdateWebhookEndpointRequest) -> EndpointChanges:
    """Return what is to be different about an endpoint."""
    for name in body.model_fields_set:
        if getattr(body, name) is None:
            raise InvalidRequest(
                f"Invalid value for '{name}': null; leave it out to keep it as it is.",
                param=name,
                code="invalid_value",
            )
    types = None if body.event_types is None else from_wire_event_types(body.event_types)
    return EndpointChanges(name=body.name, url=body.url, event_types=types)


def to_wire_endpoint(endpoint: Endpoint) -> WebhookEndpoint:
    """Return an endpoint as OpenAI writes it."""
    return WebhookEndpoint(
        id=endpoint.id,
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
        name=endpoint.name,
        url=endpoint.url,
        event_types=list(endpoint.event_types),
        signing_secret_hint=endpoint.secret_hint,
    )


def to_wire_endpoint_with_secret(endpoint: Endpoint) -> WebhookEndpointWithSecret:
    """Return an endpoint and its secret."""
    return WebhookEndpointWithSecret(
        **to_wire_endpoint(endpoint).model_dump(), signing_secret=endpoint.secret
    )
