"""The checks that every answer of the acceptance tests passes through: each can fail."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from support.contract import sdk, spec, transport
from support.contract.broken import ContractBroken
from support.contract.endpoints import ENDPOINTS, Body, Endpoint, endpoint_of
from support.contract.transport import CheckedTransport

HEADERS = {"openai-processing-ms": "3", "openai-version": "2020-10-01"}
MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "system"}
JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "object": "fine_tuning.job",
    "created_at": 1,
    "error": None,
    "fine_tuned_model": None,
    "finished_at": None,
    "hyperparameters": {"n_epochs": "auto"},
    "model": "m",
    "organization_id": "org-1",
    "result_files": [],
    "seed": 1,
    "status": "paused",
    "trained_tokens": None,
    "training_file": "file-1",
    "validation_file": None,
}
MESSAGE = {"role": "assistant", "content": "yes", "refusal": None}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop", "logprobs": None}],
}
CHUNK: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "yes"}, "finish_reason": None}],
}
QUESTION: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
DONE = b"data: [DONE]\n\n"


@pytest.fixture(autouse=True)
def no_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "openai_spec", lambda: None)


def client(
    body: Any, *, status: int = 200, kind: str = "application/json", request_id: str = "req_1"
) -> OpenAI:
    """Return a client of a service that gives one answer to everything."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(request: httpx2.Request) -> httpx2.Response:
        headers = {**HEADERS, "content-type": kind, "x-request-id": request_id}
        return httpx2.Response(status, content=content, headers=headers)

    http = httpx2.Client(transport=CheckedTransport(httpx2.MockTransport(answer)))
    return OpenAI(base_url="http://test/v1", api_key="sk", max_retries=0, http_client=http)


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def stream(body: bytes, **options: Any) -> list[Any]:
    asked = client(body, kind="text/event-stream").chat.completions.create(
        **QUESTION, stream=True, **options
    )
    return list(asked)


def test_an_answer_that_is_as_it_should_be_reaches_the_caller() -> None:
    assert client(MODEL).models.retrieve("ft:a:b::c").id == "m"
    assert client({**MODEL, "tunery": {"any": "thing"}}).models.retrieve("m").id == "m"
    assert client({"object": "list", "data": [MODEL]}).models.list().data[0].id == "m"
    assert client(JOB).fine_tuning.jobs.retrieve("ftjob-1").to_dict()["status"] == "paused"
    assert client(COMPLETION).chat.completions.create(**QUESTION).choices[0].index == 0
    content = client(b"\0\1", kind="application/octet-stream").files.content("file-1")
    assert content.read() == b"\0\1"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({k: v for k, v in MODEL.items() if k != "created"}, "created: Field required"),
        ({**MODEL, "created": "1"}, "created: Input should be a valid integer"),
        ({**MODEL, "created": 1.5}, "created: Input should be a valid integer"),
        ({**MODEL, "object": "thing"}, "object: Input should be 'model'"),
        ({**MODEL, "colour": None}, "colour: Extra inputs are not permitted"),
        ([MODEL], "the body: Input should be an object"),
    ],
)
def test_an_answer_that_is_not_the_sdks_type_is_refused(body: Any, fault: str) -> None:
    with pytest.raises(ContractBroken, match=re.escape(fault)):
        client(body).models.retrieve("m")


def test_an_unknown_field_is_found_at_any_depth() -> None:
    choice = {**COMPLETION["choices"][0], "message": {**MESSAGE, "mood": "good"}}
    with pytest.raises(ContractBroken, match=r"choices\.0\.message\.mood: Extra inputs"):
        client({**COMPLETION, "choices": [choice]}).chat.completions.create(**QUESTION)
    page = {"object": "list", "data": [{**MODEL, "mood": "good"}]}
    with pytest.raises(ContractBroken, match=r"data\.0\.mood: Extra inputs"):
        client(page).models.list()
    with pytest.raises(ContractBroken, match=r"has_more: Extra inputs"):
        client({"object": "list", "data": [], "has_more": False}).models.list()


def test_our_values_and_fields_are_allowed_where_they_are_listed_and_nowhere_else() -> None:
    with pytest.raises(ContractBroken, match=r"status: Input should be .*'paused'"):
        client({**JOB, "status": "resting"}).fine_tuning.jobs.retrieve("ftjob-1")
    with pytest.raises(ContractBroken, match=r"user_provided_suffix: Extra inputs"):
        client({**MODEL, "user_provided_suffix": "x"}).models.retrieve("m")
    assert set(sdk.EXTRA_VALUES) == {
        ("FineTuningJob", "status"),
        ("ChatCompletionStoreMessage", "role"),
    }
    assert sdk.EXTRA_VALUES["FineTuningJob", "status"] == ("paused",)


@pytest.mark.parametrize("gone", ["message", "type", "param", "code"])
def test_an_error_has_exactly_four_keys(gone: str) -> None:
    error = {"message": "no", "type": "invalid_request_error", "param": None, "code": None}
    with pytest.raises(openai.NotFoundError):
        client({"error": error}, status=404).models.retrieve("m")
    less = {key: value for key, value in error.items() if key != gone}
    for wrong in ({"error": less}, {"error": {**error, "hint": ""}}, {"error": error, "ok": 0}):
        with pytest.raises(ContractBroken):
            client(wrong, status=404).models.retrieve("m")


def test_nothing_passes_unchecked() -> None:
    for ask in (
        lambda: client(MODEL, status=201).models.retrieve("m"),
        lambda: client(MODEL, kind="text/plain").models.retrieve("m"),
        lambda: client(b"", status=502, kind="text/html").models.retrieve("m"),
        lambda: client(MODEL, request_id="1").models.retrieve("m"),
        lambda: client(b"{}").files.content("file-1"),
        lambda: client(MODEL).get("/nowhere", cast_to=object),
        lambda: client(COMPLETION).chat.completions.create(**QUESTION, stream=True),
        lambda: client(event(MODEL), kind="text/event-stream").models.retrieve("m"),
    ):
        with pytest.raises(ContractBroken):
            ask()


def test_a_streams_events_are_checked_as_they_pass() -> None:
    assert len(stream(event(CHUNK) * 2 + DONE)) == 2
    bad = {**CHUNK, "choices": [{"index": 0, "delta": {"text": "yes"}, "finish_reason": None}]}
    for body in (
        event(bad) + DONE,
        event(CHUNK),  # no end
        event(CHUNK) + DONE + event(CHUNK),  # something after the end
        event(CHUNK) + b"data: [DO",  # torn
        b"event: chunk\n" + event(CHUNK) + DONE,
        event({"error": {"message": "no"}}),
    ):
        with pytest.raises(ContractBroken):
            stream(body)


def test_a_stream_may_end_in_an_error_and_may_be_left_early() -> None:
    error = {"message": "no", "type": "server_error", "param": None, "code": None}
    with pytest.raises(openai.APIError, match="no"):
        stream(event(CHUNK) + event({"error": error}))
    asked = client(event(CHUNK) * 3, kind="text/event-stream").chat.completions.create(
        **QUESTION, stream=True
    )
    with asked as early:
        assert next(iter(early)).id == "chatcmpl-1"


def test_a_responses_stream_has_named_events_and_a_typed_end() -> None:
    delta = {
        "type": "response.output_text.delta",
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "sequence_number": 1,
        "delta": "yes",
        "logprobs": [],
    }
    error = {"type": "error", "code": None, "message": "no", "param": None, "sequence_number": 2}
    body = b"event: response.output_text.delta\n" + event(delta) + b"event: error\n" + event(error)

    def ask(content: bytes) -> list[Any]:
        asked = client(content, kind="text/event-stream").responses.create(
            model="m", input="hi", stream=True
        )
        return list(asked)

    assert [one.type for one in ask(body)] == ["response.output_text.delta", "error"]
    for wrong in (event(delta), body.replace(b"event: error", b"event: end"), body[:-5] + DONE):
        with pytest.raises(ContractBroken):
            ask(wrong)


def test_every_type_of_the_table_can_be_checked_strictly() -> None:
    for endpoint in (one for one in ENDPOINTS if not one.ours):
        for kind in (endpoint.answer, endpoint.events):
            if kind is not None and kind is not Body.BYTES:
                with pytest.raises(ContractBroken):
                    sdk.check(kind, b'{"no such field": 1}', str(endpoint))


@pytest.mark.parametrize(
    ("method", "path", "row"),
    [
        ("GET", "/models/ft:a:b:c:d", "GET /models/{model}"),
        ("GET", "/models/a/b", "GET /models/{model}"),
        ("POST", "/responses/compact", "POST /responses/compact"),
        ("GET", "/files/file-1/content", "GET /files/{file_id}/content"),
        ("PUT", "/files", None),
        ("GET", "/files/a/b/c", None),
    ],
)
def test_a_request_finds_its_row(method: str, path: str, row: str | None) -> None:
    found = endpoint_of(method, path)
    assert (str(found) if found else None) == row


# ---- OpenAI's own document


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/models/{id}": {
            "get": {
                "responses": {
                    "200": {
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Model"}}
                        }
                    }
                }
            }
        },
        "/moderations": {
            "post": {
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"type": "object", "required": ["input"], "x-note": 1}
                        }
                    }
                },
                "responses": {"200": {}},
            }
        },
    },
    "components": {
        "schemas": {
            "Model": {
                "type": "object",
                "discriminator": {"propertyName": "object"},
                "required": ["id", "shutdown_date"],
                "properties": {
                    "id": {"type": "string"},
                    "shutdown_date": {"type": "string", "nullable": True},
                },
            },
            "ErrorResponse": {"type": "object", "required": ["error"]},
        }
    },
}
RETRIEVE = Endpoint("GET", "/models/{model}", None)
MODERATE = Endpoint("POST", "/moderations", None)


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> spec.Spec:
    monkeypatch.setattr(spec, "PATCHES", ())
    return spec.Spec(DOCUMENT)


def test_the_document_is_held_against_answers_and_requests(document: spec.Spec) -> None:
    kind = "application/json"
    document.check_answer(RETRIEVE, kind, {"id": "m", "shutdown_date": None})
    document.check_request(MODERATE, {"input": "x"})
    document.check_error({"error": {}}, "an error")
    wrongs: tuple[Callable[[], None], ...] = (
        lambda: document.check_answer(RETRIEVE, kind, {"id": "m"}),
        lambda: document.check_answer(RETRIEVE, kind, {"id": 1, "shutdown_date": "2026-10-23"}),
        lambda: document.check_request(MODERATE, {"model": "x"}),
        lambda: document.check_error({}, "an error"),
        lambda: document.check_answer(Endpoint("GET", "/models/{model}/nowhere", None), kind, {}),
    )
    document.check_answer(Endpoint("GET", "/elsewhere", None), kind, {})  # not in this part of it
    for wrong in wrongs:
        with pytest.raises(ContractBroken):
            wrong()


def test_a_client_uses_the_document_where_there_is_one(
    document: spec.Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "openai_spec", lambda: document)
    with pytest.raises(ContractBroken, match="'shutdown_date' is a required property"):
        client(MODEL).models.retrieve("m")
    assert client({**MODEL, "shutdown_date": None}).models.retrieve("m").id == "m"


def test_a_place_where_the_document_is_wrong_takes_what_is_listed_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = "components/schemas/Model/properties/id"
    monkeypatch.setattr(spec, "PATCHES", ((place, {"const": 5}, "known"),))
    patched = spec.Spec(DOCUMENT)
    patched.check_answer(RETRIEVE, "application/json", {"id": 5, "shutdown_date": None})
    with pytest.raises(ContractBroken):
        patched.check_answer(RETRIEVE, "application/json", {"id": 6, "shutdown_date": None})
    place = "components/schemas/Model/properties/gone"
    monkeypatch.setattr(spec, "PATCHES", ((place, {}, "no such place"),))
    with pytest.raises(KeyError):
        spec.Spec(DOCUMENT)
    place = "components/schemas/Elsewhere/properties/id"  # not in this part of the document
    monkeypatch.setattr(spec, "PATCHES", ((place, {}, "another part"),))
    spec.Spec(DOCUMENT)


def test_a_document_without_responses_says_nothing_of_them(document: spec.Spec) -> None:
    retrieve = Endpoint("GET", "/responses/{response_id}", None)
    document.check_answer(retrieve, "application/json", {})
    with_one = spec.Spec({**DOCUMENT, "paths": {**DOCUMENT["paths"], "/responses": {"post": {}}}})
    with pytest.raises(ContractBroken, match="does not have it"):
        with_one.check_answer(retrieve, "application/json", {})


@pytest.mark.skipif(spec.spec_path() is None, reason=f"{spec.VARIABLE} names no document")
def test_the_table_has_only_what_openais_document_has() -> None:
    known = spec.openai_spec()
    assert known is not None
    for endpoint in (one for one in ENDPOINTS if not one.ours):
        if not endpoint.path.startswith(spec.NOT_IN_SPEC):
            known.check_answer(endpoint, "text/none", None)


def test_the_document_is_only_looked_for_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(spec.VARIABLE, raising=False)
    assert spec.spec_path() is None
    monkeypatch.setenv(spec.VARIABLE, str(tmp_path / "spec.yaml"))
    assert spec.spec_path() is None
    (tmp_path / "spec.yaml").write_text("paths: {}")
    assert spec.spec_path() == tmp_path / "spec.yaml"
