"""Requests generated from the server's own OpenAPI document: it keeps its word, whatever comes."""

import random
import re
from collections import Counter
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conformance.fields.probe import Refused
from conformance.fields.table import ENDPOINTS
from conformance.fields.webhooks import NEVER
from support.receivers import Receiver
from support.server import BASE, EMBEDDING, Server, Tuned

SEED = 20261122
CASES, WITH_BODY = 30, 80
"""Generated for an operation in each of the two modes, without and with a body."""
LEAST_CASES = 2000
MAX_TOKENS, MAX_CHOICES = 4, 2
LEAST_OUTPUT_TOKENS = 16  # of a response
LIMITS = {
    "max_tokens": MAX_TOKENS,
    "max_completion_tokens": MAX_TOKENS,
    "max_output_tokens": LEAST_OUTPUT_TOKENS,
    "n": MAX_CHOICES,
    "best_of": MAX_CHOICES,
}
UNDONE = {
    f"{one.method} /v1{one.path}": one.undo.replace(" ", " /v1", 1) for one in ENDPOINTS if one.undo
}
"""What is made is ended or removed again, as the tables of fields say."""
REFUSED = {
    f"{one.method} /v1{one.path}": frozenset(
        name for name, probe in one.fields.items() if isinstance(probe, Refused)
    )
    for one in ENDPOINTS
}
BASES = {f"{one.method} /v1{one.path}": frozenset(one.base) for one in ENDPOINTS}
# What is known under a name at one path alone.
MESSAGES = [{"role": "user", "content": "hi"}]
KNOWN_AT: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": EMBEDDING},
    "/v1/moderations": {"model": "omni-moderation-latest"},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/uploads": {"bytes": 3, "mime_type": "text/jsonl", "purpose": "batch"},
    "/v1/responses": {"input": "hi"},
    "/v1/responses/input_tokens": {"input": "hi"},
}
# Acts for which the things that are there have come too far, and removals, which spare them.
NEVER_200 = re.compile(r"DELETE |POST .*/(cancel|pause|resume|complete)$")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def schema(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


class Key(requests.auth.AuthBase):
    """Gives every request the key that its path takes."""

    def __init__(self, project: str, admin: str) -> None:
        self._project = project
        self._admin = admin

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        key = self._admin if "/permissions" in request.path_url else self._project
        request.headers["authorization"] = f"Bearer {key}"
        return request


class Sender:
    """Sends generated requests, some of them about things that are really there."""

    def __init__(self, server: Server, tuned: Tuned, receiver: Receiver) -> None:
        self._url = server.url
        self._session = requests.Session()
        # The last word on the header: some cases come without a key, or with one made up.
        self._session.auth = Key(server.env["OPENAI_API_KEY"], server.env["OPENAI_ADMIN_KEY"])
        self._known = known_things(server, tuned, receiver)
        self.sent: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()

    def check(self, case: Case[Any], *, known: bool, kept: int) -> None:
        """Send a request and check the answer; `kept` says which fields a known one keeps."""
        if known and case.method != "DELETE":
            self._make_known(case, kept)
        _shorten(case)
        response = case.call(session=self._session, timeout=60)
        self.sent[case.operation.label] += 1
        self.taken[case.operation.label] += response.status_code == 200
        case.validate_response(response, checks=CHECKS)
        undo = UNDONE.get(case.operation.label)
        if undo is not None and response.status_code == 200:
            method, path = undo.replace("{id}", response.json()["id"]).split()
            self._session.request(method, self._url + path, timeout=60)

    def _make_known(self, case: Case[Any], kept: int) -> None:
        """Put real things in, and leave out what is refused whatever it says."""
        known = {**self._known, **KNOWN_AT.get(case.path, {})}
        for fields in (case.path_parameters, case.body):
            if isinstance(fields, dict):
                for name, value in known.items():
                    if name in fields:
                        fields[name] = value
        if isinstance(case.body, dict):
            label = case.operation.label
            _leave_out(case.body, REFUSED.get(label, frozenset()), "")
            for place, name in enumerate(sorted(case.body)):
                if name not in BASES.get(label, ()) and not kept >> place & 1:
                    del case.body[name]


def _leave_out(value: Any, refused: frozenset[str], path: str) -> None:
    """Remove the refused fields from a body, at any depth."""
    if isinstance(value, list):
        for item in value:
            _leave_out(item, refused, f"{path}[]")
    elif isinstance(value, dict):
        for name in list(value):
            inner = f"{path}.{name}".removeprefix(".")
            if inner in refused:
                del value[name]
            else:
                _leave_out(value[name], refused, inner)


def known_things(server: Server, tuned: Tuned, receiver: Receiver) -> dict[str, Any]:
    """Return what stands under the names of parameters and fields, and is really there."""
    client = server.client()
    batch_file = client.files.create(file=("batch.jsonl", b"{}\n"), purpose="batch").id
    batch = client.batches.create(
        input_file_id=batch_file, endpoint="/v1/chat/completions", completion_window="24h"
    )
    upload = client.uploads.create(
        bytes=3, filename="a.jsonl", mime_type="text/jsonl", purpose="batch"
    )
    stored = client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "hi"}], max_tokens=1, store=True
    )
    kept = client.responses.create(model=BASE, input="hi", max_output_tokens=LEAST_OUTPUT_TOKENS)
    hook = client.webhooks.create(name="x", url=receiver.url, event_types=[NEVER])
    return {
        "file_id": tuned.training.id,
        "job_id": tuned.job.id,
        "checkpoint": tuned.model,
        "model": BASE,
        "training_file": tuned.training.id,
        "validation_file": tuned.validation.id,
        "project_ids": [server.new_project("generated")],
        "batch_id": batch.id,
        "input_file_id": batch_file,
        "endpoint": batch.endpoint,
        "upload_id": upload.id,
        "completion_id": stored.id,
        "response_id": kept.id,
        "previous_response_id": kept.id,
        "endpoint_id": hook.id,
        "url": receiver.url,
        "event_types": [NEVER],
        "event_type": NEVER,
    }


def _shorten(case: Case[Any]) -> None:
    """Bound the answers: a tiny model goes on until its context is full."""
    body = case.body
    if not isinstance(body, dict) or not case.path.endswith(("/completions", "/responses")):
        return
    for name, most in LIMITS.items():
        asked = body.get(name)
        if isinstance(asked, int) and asked > most:
            body[name] = most
    field = "max_output_tokens" if case.path.endswith("/responses") else "max_tokens"
    if body.get(field) is None and body.get("max_completion_tokens") is None:
        body[field] = LIMITS[field]


def run(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, sender: Sender) -> None:
    """Generate an operation's requests and check each answer."""

    @seed(SEED)
    @settings(
        max_examples=WITH_BODY if operation.body else CASES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=mode),
        known=st.booleans(),
        kept=st.integers(0, 2**64 - 1),
    )
    def generated(case: Case[Any], known: bool, kept: int) -> None:
        sender.check(case, known=known, kept=kept)

    generated()


def test_no_request_makes_the_server_break_its_word(
    schema: Any, server: Server, tuned: Tuned, receiver: Receiver, subtests: pytest.Subtests
) -> None:
    random.seed(SEED)
    sender = Sender(server, tuned, receiver)
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not operation.path.startswith("/v1/"):
                continue  # nothing is asked there that could be wrong
            with subtests.test(operation.label, mode=mode.value):
                run(operation, mode, sender)
    assert sender.sent.total() >= LEAST_CASES, sender.sent
    # It is not only refusals that were checked.
    refused = [label for label in sender.sent if not sender.taken[label]]
    assert [label for label in refused if not NEVER_200.match(label)] == [], sender.taken
