"""/webhook_endpoints and /webhook_event_types. No event of the types here ever comes about."""

from typing import Literal

from openai.types.webhooks import (
    WebhookCreateParams,
    WebhookListParams,
    WebhookRotateSecretParams,
    WebhookTestParams,
    WebhookUpdateParams,
)

from conformance.fields.files import after_first, shorter
from conformance.fields.probe import Endpoint, Honoured, echoes

ENDPOINT = "/webhook_endpoints/{webhook_endpoint_id}"
NOWHERE = "http://127.0.0.1:9/in"
NEVER: Literal["response.cancelled"] = "response.cancelled"
TYPES = "events of jobs, batches and responses"

FIELDS = {
    "name": Honoured(
        value="mine",
        other="ours",
        shows=echoes("name", value="mine"),
        wrong=("", "x" * 257, 5, None),
        values="1 to 256 characters",
    ),
    "url": Honoured(
        value=NOWHERE,
        other="{receiver}",
        shows=echoes("url", value=NOWHERE),
        wrong=("", "ftp://a.example/", "https://u:p@a.example/", "https://a/" + "x" * 2048, 5),
        values="up to 2048 characters; HTTPS to a public address, unless the operator allows more",
    ),
    "event_types": Honoured(
        value=["batch.expired"],
        other=[NEVER],
        shows=echoes("event_types", value=["batch.expired"]),
        wrong=([], ["nothing"], ["eval.run.failed"], "batch.expired", None),
        values=TYPES,
    ),
}

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/webhook_endpoints",
        params=WebhookCreateParams,
        base={"name": "x", "url": NOWHERE, "event_types": [NEVER]},
        undo="DELETE /webhook_endpoints/{id}",
        fields=FIELDS,
    ),
    Endpoint(
        method="GET",
        path="/webhook_endpoints",
        params=WebhookListParams,
        encoding="query",
        fields={
            "after": Honoured(
                value="{newest_webhook_endpoint}",
                shows=after_first,
                wrong=("we_x",),
                values="an endpoint's id",
            ),
            "limit": Honoured(value=1, shows=shorter, wrong=(0, 101, "few"), values="1 to 100"),
        },
    ),
    Endpoint(method="GET", path=ENDPOINT),
    Endpoint(method="POST", path=ENDPOINT, params=WebhookUpdateParams, fields=FIELDS),
    Endpoint(method="DELETE", path=ENDPOINT),
    Endpoint(
        method="POST",
        path=ENDPOINT + "/rotate_secret",
        params=WebhookRotateSecretParams,
        fields={
            "keep_old_secret_active_for_24_hours": Honoured(
                value=True,
                proof="tests/acceptance/test_webhooks.py::"
                "test_both_secrets_sign_while_the_old_one_is_kept",
                wrong=("yes", 1),
                values="true, false",
            ),
        },
    ),
    Endpoint(
        method="POST",
        path=ENDPOINT + "/test",
        params=WebhookTestParams,
        base={"event_type": NEVER},
        fields={
            "event_type": Honoured(
                value="batch.completed",
                other=NEVER,
                shows=echoes("event_type", value="batch.completed"),
                wrong=("nothing", "eval.run.failed", 5, None),
                values=TYPES,
            ),
        },
    ),
    Endpoint(method="GET", path="/webhook_event_types"),
)
