"""Webhook endpoints on the wire."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from tunery.protocol.base import Request, Response

Name = Annotated[str, Field(min_length=1, max_length=256)]
Url = Annotated[str, Field(min_length=1, max_length=2048)]
EventTypes = Annotated[list[str], Field(min_length=1, max_length=64)]


class CreateWebhookEndpointRequest(Request):
    """An endpoint to create."""

    name: Name
    url: Url
    event_types: EventTypes


class UpdateWebhookEndpointRequest(Request):
    """What is to be different; a field that is left out stays as it is."""

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None


class RotateWebhookSecretRequest(Request):
    """How to change the secret."""

    keep_old_secret_active_for_24_hours: StrictBool = False


class TestWebhookEndpointRequest(Request):
    """A sample to send."""

    __test__ = False  # the name is not a test's

    event_type: str


class WebhookEndpoint(Response):
    """An endpoint."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str


class WebhookEndpointWithSecret(WebhookEndpoint):
    """An endpoint with its secret: shown when it is made or changed, and never again."""

    signing_secret: str


class WebhookEndpointDeleted(Response):
    """An endpoint that is gone."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookEndpointTest(Response):
    """What a sample was answered with."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    event_type: str
    status_code: int
    success: Literal[True] = True
    webhook_endpoint_id: str


class WebhookEventTypeList(Response):
    """The events that are sent."""

    object: Literal["list"] = "list"
    data: list[str]
