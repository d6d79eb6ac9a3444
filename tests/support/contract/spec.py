"""Requests and answers against OpenAI's own OpenAPI document, where TUNERY_OPENAI_SPEC names one.

The document is not ours to ship: without it this check is off, and the run says so.
"""

import functools
import os
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from support.contract.broken import ContractBroken
from support.contract.endpoints import Endpoint

VARIABLE = "TUNERY_OPENAI_SPEC"
ROOT = "openai:"

NULL: dict[str, Any] = {"type": "null"}

# Where the document is known to be wrong about the live service: the place, what it takes besides,
# and how that is known.
_BATCH_NULLS = (
    "output_file_id",
    "error_file_id",
    "errors",
    "model",
    "usage",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)

PATCHES: tuple[tuple[str, dict[str, Any], str], ...] = (
    *(
        (
            f"components/schemas/Batch/properties/{name}",
            NULL,
            "its own examples answer null for what has not come about",
        )
        for name in _BATCH_NULLS
    ),
    (
        "components/schemas/OpenAIFile/properties/expires_at",
        NULL,
        "the SDK's type allows null, and files without an expiry are answered with it",
    ),
    (
        "components/schemas/OpenAIFile/properties/status_details",
        NULL,
        "the SDK's type allows null, and files without a fault are answered with it",
    ),
    (
        "components/schemas/Upload/properties/file",
        NULL,
        "the SDK's type allows null, and uploads without a file yet are answered with it",
    ),
    (
        "components/schemas/CreateUploadRequest/properties/purpose",
        {"enum": ["user_data", "evals"]},
        "the SDK's type has them, and the files that uploads become can be for them",
    ),
    (
        "components/schemas/CreateChatCompletionStreamResponse/properties/usage",
        NULL,
        "its own description: with include_usage, every chunk but the last has null",
    ),
    (
        "components/schemas/ModelResponseProperties/properties/user",
        NULL,
        "its own examples of responses have null",
    ),
    (
        "components/schemas/ResponseUsage",
        NULL,
        "its own examples of responses that are not done have null",
    ),
    (
        "components/schemas/InputItem",
        {"$ref": f"{ROOT}#/components/schemas/EasyInputMessage"},
        "a message of parts is two of its alternatives, of which one may fit; its examples send it",
    ),
    (
        "components/schemas/ChatCompletionMessageList/properties/data/items",
        {
            "required": ["id", "role", "content"],
            "properties": {"role": {"enum": ["developer", "system", "user", "tool", "function"]}},
        },
        "its own example has a user's message",
    ),
    (
        "components/schemas/ChatCompletionList/properties/first_id",
        NULL,
        "the SDK's type allows null, and an empty list has no first item",
    ),
    (
        "components/schemas/ChatCompletionList/properties/last_id",
        NULL,
        "the SDK's type allows null, and an empty list has no last item",
    ),
    (
        "components/schemas/CreateCompletionResponse/properties/choices/items/properties/logprobs"
        "/anyOf/0/properties/token_logprobs/items",
        NULL,
        "the live service answers null for the first token of an echoed prompt",
    ),
    (
        "components/schemas/CreateCompletionResponse/properties/choices/items/properties/logprobs"
        "/anyOf/0/properties/top_logprobs/items",
        NULL,
        "the live service answers null for the first token of an echoed prompt",
    ),
    (
        "components/schemas/CreateCompletionResponse/properties/choices/items/properties"
        "/finish_reason",
        NULL,
        "the pieces of a streamed answer have null until the last one",
    ),
    (
        "components/schemas/Embedding/properties/embedding",
        {"type": "string"},
        "its own request has encoding_format base64",
    ),
    (
        "components/schemas/FineTuningJob/properties/hyperparameters",
        NULL,
        "its own example of a dpo job has null",
    ),
    (
        "components/schemas/FineTuningJob/properties/status",
        {"const": "paused"},
        "the endpoint that pauses a job has no other status to answer with",
    ),
)

# What the SDK knows and the document does not have yet.
NOT_IN_SPEC = ("/webhook_endpoints", "/webhook_event_types")


def spec_path() -> Path | None:
    """Return where the document is, or None."""
    named = os.environ.get(VARIABLE)
    path = Path(named) if named else None
    return path if path is not None and path.is_file() else None


class Spec:
    """The document, and what it says of an endpoint."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = _nullable_rewritten(document)
        for place, besides, _reason in PATCHES:
            _patch(self._document, place, besides)
        resource = DRAFT202012.create_resource(self._document)
        self._registry: Registry[Any] = Registry().with_resource(ROOT, resource)
        self._paths = {_shape(path): path for path in self._document["paths"]}
        self._resources = {_resource(path) for path in self._paths}

    def check_request(self, endpoint: Endpoint, value: Any) -> None:
        """Raise ContractBroken if the document does not allow this JSON request body."""
        operation = self._operation(endpoint)
        if operation is not None:
            self._check(f"{operation}/requestBody/content", "application/json", value, endpoint)

    def check_answer(self, endpoint: Endpoint, content_type: str, value: Any) -> None:
        """Raise ContractBroken if the document does not allow this answer, or event."""
        operation = self._operation(endpoint)
        if operation is not None:
            self._check(f"{operation}/responses/200/content", content_type, value, endpoint)

    def check_error(self, value: Any, what: object) -> None:
        """Raise ContractBroken if this is not the document's error."""
        self._validate("#/components/schemas/ErrorResponse", value, what)

    def _operation(self, endpoint: Endpoint) -> str | None:
        """Return the pointer to an endpoint's operation, or None where the document has none."""
        if endpoint.path.startswith(NOT_IN_SPEC) or _resource(endpoint.path) not in self._resources:
            return None
        path = self._paths.get(_shape(endpoint.path))
        if path is None or endpoint.method.lower() not in self._document["paths"][path]:
            raise ContractBroken(f"{endpoint}: OpenAI's document does not have it")
        return f"#/paths/{path.replace('/', '~1')}/{endpoint.method.lower()}"

    def _check(self, content: str, content_type: str, value: Any, what: object) -> None:
        node: Any = self._document
        for step in content.removeprefix("#/").split("/"):
            node = node.get(step.replace("~1", "/"), {})
        if content_type in node:
            pointer = f"{content}/{content_type.replace('/', '~1')}/schema"
            self._validate(pointer, value, what)

    def _validate(self, pointer: str, value: Any, what: object) -> None:
        error = best_match(self._validator(pointer).iter_errors(value))
        if error is not None:
            part = "request" if "/requestBody/" in pointer else "answer"
            raise ContractBroken(
                f"{what}: OpenAI's document refuses the {part} at {error.json_path}:"
                f" {error.message[:600]}\nin {str(value)[:600]}"
            )

    @functools.cache  # noqa: B019 - one document a process
    def _validator(self, pointer: str) -> Draft202012Validator:
        return Draft202012Validator({"$ref": ROOT + pointer}, registry=self._registry)


@functools.cache
def openai_spec() -> Spec | None:
    """Return OpenAI's document, read once, or None."""
    path = spec_path()
    if path is None:
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as handle:
        return Spec(yaml.load(handle, loader))  # noqa: S506 - a safe loader, of either make


def _resource(path: str) -> str:
    """Return what a path is about: a part of the whole document has all of it, or nothing."""
    return path.split("/")[1]


def _shape(path: str) -> str:
    """Return a path without the names of its parameters."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def _nullable_rewritten(node: Any) -> Any:
    """Return the document with OpenAPI 3.0's `nullable` as what 3.1 writes for it."""
    if isinstance(node, list):
        return [_nullable_rewritten(one) for one in node]
    if not isinstance(node, dict):
        return node
    rewritten = {key: _nullable_rewritten(value) for key, value in node.items()}
    if rewritten.get("nullable") is True:
        del rewritten["nullable"]
        return {"anyOf": [rewritten, NULL]}
    return rewritten


def _patch(document: dict[str, Any], place: str, besides: dict[str, Any]) -> None:
    *steps, last = place.split("/")
    if place.split("/")[2] not in document["components"]["schemas"]:  # cut out of this document
        return
    node: Any = document
    for step in steps:
        node = node[int(step)] if isinstance(node, list) else node[step]
    node[last] = {"anyOf": [node[last], besides]}
