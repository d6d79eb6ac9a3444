"""Every field of every request is honoured or refused by its name; none is silently ignored."""

import copy
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from openai import OpenAI
from openai.types import FileObject

from conformance.fields.files import LINE
from conformance.fields.fine_tuning import LABEL
from conformance.fields.probe import (
    ABSENT,
    Answer,
    Disclosed,
    Endpoint,
    Honoured,
    Refused,
    named,
    put,
)
from conformance.fields.surface import SURFACE, endpoints, ours, shape
from conformance.fields.table import ENDPOINTS
from conformance.fields.webhooks import NEVER, NOWHERE
from support.contract.transport import CheckedTransport
from support.receivers import Receiver
from support.server import BASE, EMBEDDING, Server, Tuned
from tunery.storage.tables import usage

ROOT = Path(__file__).resolve().parents[2]
PROBES = [(one, name) for one in ENDPOINTS for name in one.fields]
HONOURED = [(one, name) for one, name in PROBES if isinstance(one.fields[name], Honoured)]
REFUSED = [(one, name) for one, name in PROBES if isinstance(one.fields[name], Refused)]
DISCLOSED = [(one, name) for one, name in PROBES if isinstance(one.fields[name], Disclosed)]


def ids(value: object) -> str:
    return str(value)


@pytest.fixture(scope="module")
def http(server: Server) -> httpx2.Client:
    http = httpx2.Client(
        base_url=f"{server.url}/v1",
        headers={"authorization": f"Bearer {server.env['OPENAI_API_KEY']}"},
        transport=CheckedTransport(httpx2.HTTPTransport()),
        timeout=60,
    )
    server.closes(http)
    return http


@pytest.fixture(scope="module")
def things(server: Server, client: OpenAI, tuned: Tuned, receiver: Receiver) -> dict[str, str]:
    """Return the ids that stand in the tables in braces."""
    jobs = client.fine_tuning.jobs
    labelled = jobs.create(model=BASE, training_file=tuned.training.id, metadata=LABEL)
    jobs.cancel(labelled.id)
    projects = [server.new_project(name) for name in ("one", "other")]
    admin = server.client(server.env["OPENAI_ADMIN_KEY"])
    granted = admin.fine_tuning.checkpoints.permissions.create(tuned.model, project_ids=projects)
    return {
        "project": projects[0],
        "other_project": projects[1],
        "newest_permission": granted.data[-1].id,
        "base_model": BASE,
        "model": tuned.model,
        "embedding_model": EMBEDDING,
        "other_embedding_model": "tiny-vectors",
        "file_id": tuned.training.id,
        "batch_file": batch_file(client).id,
        "other_batch_file": batch_file(client).id,
        "other_file": tuned.validation.id,
        "fine_tuning_job_id": tuned.job.id,
        "newest_event": jobs.list_events(tuned.job.id, limit=1).data[0].id,
        "newest_checkpoint": jobs.checkpoints.list(tuned.job.id, limit=1).data[0].id,
        **stored_completions(client, tuned.model),
        **kept_response(client, tuned.model),
        **webhook_endpoints(client, receiver),
    }


def stored_completions(client: OpenAI, tuned: str) -> dict[str, str]:
    """Store a completion of the tuned model and one of the base; return ids of theirs."""
    made = [
        client.chat.completions.create(
            model=model,
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}],
            max_tokens=1,
            store=True,
            metadata=metadata,
        ).id
        for model, metadata in ((tuned, LABEL), (BASE, {}))
    ]
    messages = client.chat.completions.messages.list(made[0])
    return {
        "completion_id": made[0],
        "oldest_completion": client.chat.completions.list(limit=1).data[0].id,
        "first_message": messages.data[0].id,
    }


def kept_response(client: OpenAI, model: str) -> dict[str, str]:
    """Have a response kept; return its id and that of its newest item."""
    response = client.responses.create(
        model=model,
        input=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "a"}],
        max_output_tokens=16,
    )
    items = client.responses.input_items.list(response.id)
    newest = items.data[0].id
    assert newest is not None
    # A function without parameters: the call that the answer has to be is short.
    called = client.responses.create(
        model=model,
        input="a",
        tools=[{"type": "function", "name": "f", "parameters": None, "strict": True}],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    (call,) = called.output
    assert call.type == "function_call"
    return {
        "response_id": response.id,
        "newest_item": newest,
        "called": called.id,
        "call_id": call.call_id,
    }


def webhook_endpoints(client: OpenAI, receiver: Receiver) -> dict[str, str]:
    """Make two endpoints, one of them a real one."""
    urls = (receiver.url, NOWHERE)
    made = [client.webhooks.create(name="x", url=url, event_types=[NEVER]).id for url in urls]
    return {
        "receiver": receiver.url,
        "webhook_endpoint_id": made[0],
        "newest_webhook_endpoint": made[1],
    }


def batch_file(client: OpenAI) -> FileObject:
    """Upload a batch's input file whose only line is refused at once."""
    return client.files.create(file=("batch.jsonl", b"{}\n"), purpose="batch")


class Asker:
    """Sends the requests of the tables."""

    def __init__(
        self, http: httpx2.Client, client: OpenAI, things: dict[str, str], admin_key: str
    ) -> None:
        self._http = http
        self._client = client
        self._things = things
        self._admin_key = admin_key
        self._upload: dict[str, str] = {}

    def ask(self, endpoint: Endpoint, beside: Any, name: str, value: Any) -> Answer:
        """Send an endpoint's valid request with some fields set otherwise."""
        self._upload = {}
        request: dict[str, Any] = copy.deepcopy(dict(endpoint.base))
        for path, one in beside.items():
            put(request, path, copy.deepcopy(one))
        put(request, name, copy.deepcopy(value))
        return self.send(endpoint, self._filled(request))

    def send(self, endpoint: Endpoint, request: dict[str, Any]) -> Answer:
        """Send a request as it is."""
        options: dict[str, Any] = {}
        if endpoint.admin:
            options["headers"] = {"authorization": f"Bearer {self._admin_key}"}
        if endpoint.encoding == "json":
            options["json"] = request
        elif endpoint.encoding == "query":
            options["params"] = _flat(request)
        else:
            fields = {key: (None, str(one)) for key, one in _flat(request).items()}
            files = {key: one for key, one in request.items() if isinstance(one, tuple)}
            options["files"] = {**fields, **files}
            if not options["files"]:  # a form without fields has to be written by hand
                options["headers"] = {"content-type": "multipart/form-data; boundary=end"}
                options["content"] = b"--end--\r\n"
        response = self._http.request(endpoint.method, self._filled(endpoint.path), **options)
        kind = response.headers["content-type"].partition(";")[0]
        made: dict[str, Any] = response.json() if kind == "application/json" else {}
        if endpoint.undo and response.is_success:
            method, path = endpoint.undo.replace("{id}", str(made["id"])).split()
            undone = self._http.request(method, path)
            assert undone.status_code in (200, 400), undone.text  # some end by themselves
        return Answer(response.status_code, kind, response.text, made)

    def _filled(self, value: Any) -> Any:
        """Return a value with the ids in place of their names."""
        if isinstance(value, dict):
            return {key: self._filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if isinstance(value, str):
            return re.sub(r"\{(\w+)\}", self._id, value)
        return value

    def _id(self, found: re.Match[str]) -> str:
        if found[1] == "newest_file":
            return self._client.files.list(limit=1).data[0].id
        if found[1] == "newest_job":
            return self._client.fine_tuning.jobs.list(limit=1).data[0].id
        if found[1] == "newest_batch":
            return self._client.batches.list(limit=1).data[0].id
        if found[1] in ("upload_id", "part_id"):
            return self._pending()[found[1]]
        return self._things[found[1]]

    def _pending(self) -> dict[str, str]:
        """Return the ids of an upload and its part, made for one request."""
        if not self._upload:
            upload = self._client.uploads.create(
                bytes=len(LINE), filename="a.jsonl", mime_type="text/jsonl", purpose="batch"
            )
            part = self._client.uploads.parts.create(upload.id, data=LINE)
            self._upload = {"upload_id": upload.id, "part_id": part.id}
        return self._upload


def _flat(request: dict[str, Any]) -> dict[str, Any]:
    """Return fields as a form or a query writes them: maps as `a[b]`."""
    flat: dict[str, Any] = {}
    for key, value in request.items():
        if isinstance(value, dict):
            flat.update({f"{key}[{inner}]": one for inner, one in value.items()})
        elif isinstance(value, list):
            flat[f"{key}[]"] = value
        elif not isinstance(value, tuple):
            flat[key] = value
    return flat


@pytest.fixture(scope="module")
def asker(server: Server, http: httpx2.Client, client: OpenAI, things: dict[str, str]) -> Asker:
    return Asker(http, client, things, server.env["OPENAI_ADMIN_KEY"])


def refused_by_name(answer: Answer, name: str) -> bool:
    """Whether an answer is a 400 that names the field."""
    return answer.status == 400 and named(answer.value["error"]["param"], name)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=ids)
def test_the_table_has_every_field_that_the_sdk_sends(endpoint: Endpoint) -> None:
    assert sorted(endpoint.fields) == sorted(endpoint.listed())


def test_the_table_has_every_route_of_the_server(server: Server) -> None:
    document = httpx2.get(f"{server.url}/openapi.json", trust_env=False).json()
    served = {
        shape(method, path.removeprefix("/v1"))
        for path, methods in document["paths"].items()
        if path.startswith("/v1/")
        for method in methods
    }
    assert {shape(one.method, one.path) for one in ENDPOINTS} == served


def test_the_list_of_openais_endpoints_has_each_once_and_all_that_are_served() -> None:
    surface = endpoints(*SURFACE)
    assert len(surface) == len(set(surface))
    assert not set(ours()) & set(surface)
    assert {shape(one.method, one.path) for one in ENDPOINTS} <= {*surface, *ours()}


def test_an_endpoint_in_another_release_is_an_unknown_url(http: httpx2.Client) -> None:
    served = {shape(one.method, one.path) for one in ENDPOINTS}
    for one in endpoints(*SURFACE):
        if one not in served:
            method, path = one.split()
            answer = http.request(method, path.replace("{}", "x"))
            assert answer.status_code in (404, 405), one


@pytest.mark.parametrize(("endpoint", "name"), HONOURED, ids=ids)
def test_a_field_that_is_honoured_does_what_it_says(
    asker: Asker, endpoint: Endpoint, name: str
) -> None:
    probe = endpoint.fields[name]
    assert isinstance(probe, Honoured)
    sent = asker.ask(endpoint, probe.beside, name, probe.value)
    assert sent.status == 200, sent.text
    if probe.shows is None:
        path, _, test = probe.proof.partition("::")
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.M), probe.proof
        return
    other = asker.ask(endpoint, probe.beside, name, probe.other)
    assert other.status == 200, other.text
    assert probe.shows(sent, other), (sent.text, other.text)


@pytest.mark.parametrize(("endpoint", "name"), HONOURED, ids=ids)
def test_a_field_that_is_honoured_refuses_by_its_name_what_it_cannot_honour(
    asker: Asker, endpoint: Endpoint, name: str
) -> None:
    probe = endpoint.fields[name]
    assert isinstance(probe, Honoured)
    for value in probe.wrong:
        answer = asker.ask(endpoint, probe.beside, name, value)
        assert refused_by_name(answer, name), (value, answer.text)


@pytest.mark.parametrize(("endpoint", "name"), REFUSED, ids=ids)
def test_a_field_that_is_refused_is_refused_by_its_name(
    asker: Asker, endpoint: Endpoint, name: str
) -> None:
    probe = endpoint.fields[name]
    assert isinstance(probe, Refused)
    answer = asker.ask(endpoint, probe.beside, name, probe.value)
    assert refused_by_name(answer, name), answer.text
    for value in probe.neutral:
        taken = asker.ask(endpoint, probe.beside, name, value)
        assert taken.status == 200, (value, taken.text)


@pytest.mark.parametrize(("endpoint", "name"), DISCLOSED, ids=ids)
def test_a_field_that_is_not_acted_on_is_said_so_of(
    asker: Asker, endpoint: Endpoint, name: str
) -> None:
    probe = endpoint.fields[name]
    assert isinstance(probe, Disclosed)
    answer = asker.ask(endpoint, probe.beside, name, probe.value)
    assert answer.status == 200, answer.text
    assert probe.says(answer), answer.text
    for value in probe.wrong:
        answer = asker.ask(endpoint, probe.beside, name, value)
        assert refused_by_name(answer, name), (value, answer.text)


NEEDED = [(one, name) for one in ENDPOINTS for name in one.required()]


@pytest.mark.parametrize(("endpoint", "name"), NEEDED, ids=ids)
def test_a_field_that_is_needed_is_missed_by_its_name(
    asker: Asker, endpoint: Endpoint, name: str
) -> None:
    answer = asker.ask(endpoint, {}, name, ABSENT)
    assert refused_by_name(answer, name), answer.text


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.params], ids=ids)
def test_a_field_that_nobody_knows_is_refused_by_its_name(asker: Asker, endpoint: Endpoint) -> None:
    answer = asker.ask(endpoint, {}, "no_such_field", "x")
    assert refused_by_name(answer, "no_such_field"), answer.text


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
RESPONSE: dict[str, Any] = {"input": "hi", "max_output_tokens": 16}


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        ("/chat/completions", "user", {"model": BASE, **CHAT}),
        ("/chat/completions", "safety_identifier", {"model": BASE, **CHAT}),
        ("/completions", "user", {"model": BASE, "prompt": "hi", "max_tokens": 1}),
        ("/responses", "user", {"model": BASE, **RESPONSE}),
        ("/responses", "safety_identifier", {"model": BASE, **RESPONSE}),
        ("/embeddings", "user", {"model": EMBEDDING, "input": "hi"}),
    ],
)
def test_the_end_user_stands_in_the_ledger(
    server: Server, http: httpx2.Client, path: str, field: str, body: dict[str, Any]
) -> None:
    person = f"{field} of {path}"
    assert http.post(path, json={**body, field: person}).status_code == 200
    engine = sa.create_engine(f"sqlite:///{server.data}/tunery.db")
    with engine.connect() as connection:
        people = set(connection.scalars(sa.select(usage.c.end_user)))
    engine.dispose()
    assert person in people
