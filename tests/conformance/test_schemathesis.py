"""Requests generated from the server's own OpenAPI document: it keeps its word, whatever comes."""

import random
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
from support.server import BASE, Server, Tuned

SEED = 20261122
CASES, WITH_BODY = 60, 150
"""Generated for an operation in each of the two modes, without and with a body."""
LEAST_CASES = 2000
MAX_TOKENS = 4
JOBS = "POST /v1/fine_tuning/jobs"
REFUSED = {
    f"{one.method} /v1{one.path}": frozenset(
        name for name, probe in one.fields.items() if isinstance(probe, Refused)
    )
    for one in ENDPOINTS
}
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
    """Gives every request the valid key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["authorization"] = f"Bearer {self._key}"
        return request


class Sender:
    """Sends generated requests, some of them about things that are really there."""

    def __init__(self, server: Server, tuned: Tuned) -> None:
        self._client = server.client()
        self._session = requests.Session()
        # The last word on the header: some cases come without a key, or with one made up.
        self._session.auth = Key(server.env["OPENAI_API_KEY"])
        self._known = {
            "file_id": tuned.training.id,
            "job_id": tuned.job.id,
            "model": BASE,
            "training_file": tuned.training.id,
            "validation_file": tuned.validation.id,
        }
        self.sent: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()

    def check(self, case: Case[Any], *, known: bool) -> None:
        """Send a request and check the answer."""
        if known and case.method != "DELETE":
            self._make_known(case)
        _shorten(case)
        response = case.call(session=self._session, timeout=60)
        self.sent[case.operation.label] += 1
        self.answers[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)
        if case.operation.label == JOBS and response.status_code == 200:
            job = response.json()["id"]
            self._client.fine_tuning.jobs.cancel(job)

    def _make_known(self, case: Case[Any]) -> None:
        """Put real ids in, where there are ids, and leave out what is refused whatever it says."""
        for fields in (case.path_parameters, case.body):
            if isinstance(fields, dict):
                for name, value in self._known.items():
                    if name in fields:
                        fields[name] = value
        refused = REFUSED.get(case.operation.label, frozenset())
        if isinstance(case.body, dict):
            _leave_out(case.body, refused, "")


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


def _shorten(case: Case[Any]) -> None:
    """Bound the answers: a tiny model goes on until its context is full."""
    body = case.body
    if case.path.endswith("/completions") and isinstance(body, dict):
        limited = False
        for name in ("max_tokens", "max_completion_tokens"):
            limit = body.get(name)
            limited = limited or limit is not None
            if isinstance(limit, int) and limit > MAX_TOKENS:
                body[name] = MAX_TOKENS
        if not limited:
            body["max_tokens"] = MAX_TOKENS


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
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def generated(case: Case[Any], known: bool) -> None:
        sender.check(case, known=known)

    generated()


def test_no_request_makes_the_server_break_its_word(
    schema: Any, server: Server, tuned: Tuned, subtests: pytest.Subtests
) -> None:
    random.seed(SEED)
    sender = Sender(server, tuned)
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not operation.path.startswith("/v1/"):
                continue  # nothing is asked there that could be wrong
            with subtests.test(operation.label, mode=mode.value):
                run(operation, mode, sender)
    assert sender.sent.total() >= LEAST_CASES, sender.sent
    # It is not only refusals that were checked.
    assert sender.answers[200] > LEAST_CASES / 10, sender.answers
