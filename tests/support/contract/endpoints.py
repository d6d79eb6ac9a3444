"""The endpoints that are checked: method and path to the type of the answer.

An endpoint that is not here fails its first test: nothing passes unchecked. A new endpoint is a
line of `ENDPOINTS`; paths stand as in OpenAI's document, without /v1.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, Literal, TypeVar

from openai import types
from openai.types import chat, fine_tuning, responses, uploads, webhooks
from openai.types.fine_tuning import checkpoints, jobs
from openai.types.fine_tuning.alpha import GraderRunResponse, GraderValidateResponse
from pydantic import BaseModel, ConfigDict

from tunery.protocol.file_checks import FileCheck

Item = TypeVar("Item")


class Body(Enum):
    """Answers that no type of the SDK describes."""

    BYTES = "the bytes of a file"


class Ending(Enum):
    """How a stream of events ends."""

    DONE = "[DONE]"
    TYPED = "an event whose type says so"


class Page(BaseModel, Generic[Item]):
    """A list that is not paged."""

    model_config = ConfigDict(extra="forbid")
    object: Literal["list"]
    data: list[Item]


class CursorPage(BaseModel, Generic[Item]):
    """A page of a list: the SDK asks for the next one by the id of its last item."""

    model_config = ConfigDict(extra="forbid")
    object: Literal["list"]
    data: list[Item]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


class ResponseDeleted(BaseModel):
    """A response that is gone: the SDK reads nothing of it."""

    model_config = ConfigDict(extra="forbid")
    id: str
    object: Literal["response"]
    deleted: Literal[True]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row: the type of its answer, and of its events where it streams."""

    method: str
    path: str
    answer: Any
    events: Any = None
    ending: Ending = Ending.DONE
    ours: bool = False  # OpenAI has none like it: its answers are held to our own type

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is for this endpoint. Names of models may hold slashes."""
        pattern = re.sub(r"\\\{(\w+)\\\}", _parameter, re.escape(self.path))
        return method == self.method and re.fullmatch(pattern, path) is not None


def _parameter(found: re.Match[str]) -> str:
    return ".+" if "model" in found[1] else "[^/]+"


JOB, CHECKPOINT = "/fine_tuning/jobs/{fine_tuning_job_id}", "/fine_tuning/checkpoints"
PERMISSIONS = CHECKPOINT + "/{fine_tuned_model_checkpoint}/permissions"
WEBHOOK = "/webhook_endpoints/{webhook_endpoint_id}"

# The first that matches: fixed paths stand before those with a parameter in the same place.
ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/files", CursorPage[types.FileObject]),
    Endpoint("POST", "/files", types.FileObject),
    Endpoint("GET", "/files/{file_id}", types.FileObject),
    Endpoint("DELETE", "/files/{file_id}", types.FileDeleted),
    Endpoint("GET", "/files/{file_id}/content", Body.BYTES),
    Endpoint("POST", "/files/{file_id}/check", FileCheck, ours=True),
    Endpoint("POST", "/uploads", types.Upload),
    Endpoint("POST", "/uploads/{upload_id}/parts", uploads.UploadPart),
    Endpoint("POST", "/uploads/{upload_id}/complete", types.Upload),
    Endpoint("POST", "/uploads/{upload_id}/cancel", types.Upload),
    Endpoint("GET", "/fine_tuning/jobs", CursorPage[fine_tuning.FineTuningJob]),
    Endpoint("POST", "/fine_tuning/jobs", fine_tuning.FineTuningJob),
    Endpoint("GET", JOB, fine_tuning.FineTuningJob),
    Endpoint("POST", JOB + "/cancel", fine_tuning.FineTuningJob),
    Endpoint("POST", JOB + "/pause", fine_tuning.FineTuningJob),
    Endpoint("POST", JOB + "/resume", fine_tuning.FineTuningJob),
    Endpoint("GET", JOB + "/events", CursorPage[fine_tuning.FineTuningJobEvent]),
    Endpoint("GET", JOB + "/checkpoints", CursorPage[jobs.FineTuningJobCheckpoint]),
    Endpoint("GET", PERMISSIONS, CursorPage[checkpoints.PermissionListResponse]),
    Endpoint("POST", PERMISSIONS, CursorPage[checkpoints.PermissionCreateResponse]),
    Endpoint("DELETE", PERMISSIONS + "/{permission_id}", checkpoints.PermissionDeleteResponse),
    Endpoint("POST", "/fine_tuning/alpha/graders/run", GraderRunResponse),
    Endpoint("POST", "/fine_tuning/alpha/graders/validate", GraderValidateResponse),
    Endpoint("GET", "/models", Page[types.Model]),
    Endpoint("GET", "/models/{model}", types.Model),
    Endpoint("DELETE", "/models/{model}", types.ModelDeleted),
    Endpoint("POST", "/chat/completions", chat.ChatCompletion, chat.ChatCompletionChunk),
    Endpoint("GET", "/chat/completions", CursorPage[chat.ChatCompletion]),
    Endpoint("GET", "/chat/completions/{completion_id}", chat.ChatCompletion),
    Endpoint("POST", "/chat/completions/{completion_id}", chat.ChatCompletion),
    Endpoint("DELETE", "/chat/completions/{completion_id}", chat.ChatCompletionDeleted),
    Endpoint(
        "GET",
        "/chat/completions/{completion_id}/messages",
        CursorPage[chat.ChatCompletionStoreMessage],
    ),
    Endpoint("POST", "/completions", types.Completion, types.Completion),
    Endpoint("POST", "/embeddings", types.CreateEmbeddingResponse),
    Endpoint("POST", "/moderations", types.ModerationCreateResponse),
    Endpoint("GET", "/batches", CursorPage[types.Batch]),
    Endpoint("POST", "/batches", types.Batch),
    Endpoint("GET", "/batches/{batch_id}", types.Batch),
    Endpoint("POST", "/batches/{batch_id}/cancel", types.Batch),
    Endpoint("POST", "/responses", responses.Response, responses.ResponseStreamEvent, Ending.TYPED),
    Endpoint("POST", "/responses/compact", responses.CompactedResponse),
    Endpoint("POST", "/responses/input_tokens", responses.InputTokenCountResponse),
    Endpoint(
        "GET",
        "/responses/{response_id}",
        responses.Response,
        responses.ResponseStreamEvent,
        Ending.TYPED,
    ),
    Endpoint("DELETE", "/responses/{response_id}", ResponseDeleted),
    Endpoint("POST", "/responses/{response_id}/cancel", responses.Response),
    Endpoint("GET", "/responses/{response_id}/input_items", CursorPage[responses.ResponseItem]),
    Endpoint("GET", "/webhook_endpoints", webhooks.WebhookEndpointList),
    Endpoint("POST", "/webhook_endpoints", webhooks.WebhookEndpointWithSecret),
    Endpoint("GET", WEBHOOK, webhooks.WebhookEndpoint),
    Endpoint("POST", WEBHOOK, webhooks.WebhookEndpoint),
    Endpoint("DELETE", WEBHOOK, webhooks.DeletedWebhookEndpoint),
    Endpoint("POST", WEBHOOK + "/rotate_secret", webhooks.WebhookEndpointWithSecret),
    Endpoint("POST", WEBHOOK + "/test", webhooks.WebhookEndpointTestResult),
    Endpoint("GET", "/webhook_event_types", webhooks.WebhookEventTypeList),
)


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request; `path` is without /v1."""
    return next((one for one in ENDPOINTS if one.matches(method, path)), None)
