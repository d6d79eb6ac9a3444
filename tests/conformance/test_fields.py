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
from conformance.fields.probe import ABSENT, Answer, Endpoint, Honoured, Refused, named, put
from conformance.fields.table import ENDPOINTS
from support.contract.transport import CheckedTransport
from support.server import BASE, Server, Tuned
from tunery.storage.tables import usage

ROOT = Path(__file__).resolve().parents[2]
PROBES = [(one, name) for one in ENDPOINTS for name in one.fields]
HONOURED = [(one, name) for one, name in PROBES if isinstance(one.fields[name], Honoured)]
REFUSED = [(one, name) for one, name in PROBES if isinstance(one.fields[name], Refused)]


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
def things(server: Server, client: OpenAI, tuned: Tuned) -> dict[str, str]:
    """Return the ids that stand in the tables in braces."""
    jobs = client.fine_tuning.jobs
    projects = [server.new_project(name) for name in ("one", "other")]
    admin = server.client(server.env["OPENAI_ADMIN_KEY"])
    granted = admin.fine_tuning.checkpoints.permissions.create(tuned.model, project_ids=projects)
    return {
        "project": projects[0],
        "other_project": projects[1],
        "newest_permission": granted.data[-1].id,
        "base_model": BASE,
        "model": tuned.model,
        "file_id": tuned.training.id,
        "batch_file": batch_file(client).id,
        "other_batch_file": batch_file(client).id,
        "other_file": tuned.validation.id,
        "fine_tuning_job_id": tuned.job.id,
        "newest_event": jobs.list_events(tuned.job.id, limit=1).data[0].id,
        "newest_checkpoint": jobs.checkpoints.list(tuned.job.id, limit=1).data[0].id,
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
        response = self._http.request(endpoint.method, self._filled(endpoint.path), **options)
        kind = response.headers["content-type"].partition(";")[0]
        made: dict[str, Any] = response.json() if kind == "application/json" else {}
        if endpoint.undo and response.is_success:
            undone = self._http.post(endpoint.undo.replace("{id}", str(made["id"])))
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
    missing = [name for name in endpoint.listed() if name not in endpoint.fields]
    assert missing == []
    tops = {name.split(".")[0].removesuffix("[]") for name in endpoint.listed()}
    unknown = [n for n in endpoint.fields if n.split(".")[0].removesuffix("[]") not in tops]
    assert unknown == []


def test_the_table_has_every_route_of_the_server(server: Server) -> None:
    document = httpx2.get(f"{server.url}/openapi.json", trust_env=False).json()

    def shape(method: str, path: str) -> str:
        return method.upper() + " " + re.sub(r"\{[^}]*\}", "{}", path.removeprefix("/v1"))

    served = {
        shape(method, path)
        for path, methods in document["paths"].items()
        if path.startswith("/v1/")
        for method in methods
    }
    assert {shape(one.method, one.path) for one in ENDPOINTS} == served


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


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.params], ids=ids)
def test_a_field_that_is_needed_is_missed_by_its_name(asker: Asker, endpoint: Endpoint) -> None:
    for name in endpoint.required():
        answer = asker.ask(endpoint, {}, name, ABSENT)
        assert refused_by_name(answer, name), answer.text


BODIES = [one for one in ENDPOINTS if one.params and one.encoding != "query"]


@pytest.mark.parametrize("endpoint", BODIES, ids=ids)
def test_a_field_that_nobody_knows_is_refused_by_its_name(asker: Asker, endpoint: Endpoint) -> None:
    answer = asker.ask(endpoint, {}, "no_such_field", "x")
    assert refused_by_name(answer, "no_such_field"), answer.text


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
def test_the_end_user_stands_in_the_ledger(server: Server, client: OpenAI, field: str) -> None:
    person = f"person-{field}"
    client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=1,
        extra_body={field: person},
    )
    engine = sa.create_engine(f"sqlite:///{server.data}/tunery.db")
    with engine.connect() as connection:
        people = set(connection.scalars(sa.select(usage.c.end_user)))
    engine.dispose()
    assert person in people
