"""Batches with the real SDK: answered, refused, cancelled, out of time, and through kills.

The tests that do harm share one server and run in this order: each leaves it in working order.
"""

import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from support.server import BASE, Server, chat_lines, poll

pytestmark = pytest.mark.slow

URL = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
LONG = 300  # tokens: an answer that takes a while
MANY = 60


def request(number: int, **changes: Any) -> dict[str, Any]:
    body = {
        "model": BASE,
        "messages": [{"role": "user", "content": f"ask {number:03}"}],
        "max_tokens": 6,
        "temperature": 0,
        **changes,
    }
    return {"custom_id": f"request-{number}", "method": "POST", "url": URL, "body": body}


def file_of(*requests: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in requests)


def long_file(count: int = MANY) -> bytes:
    return file_of(*(request(n, max_tokens=LONG, seed=n, temperature=1) for n in range(count)))


def create(client: OpenAI, data: bytes, endpoint: Any = URL, **options: Any) -> Batch:
    file = client.files.create(file=("requests.jsonl", data), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **options
    )


def ended(client: OpenAI, batch_id: str) -> Batch:
    def probe() -> Batch | None:
        batch = client.batches.retrieve(batch_id)
        return batch if batch.status in ENDED else None

    return poll(probe, f"the end of {batch_id}", 180)


def counted(batch: Batch) -> tuple[int, int, int]:
    counts = batch.request_counts
    assert counts is not None
    return counts.total, counts.completed, counts.failed


def come_to(client: OpenAI, batch_id: str, completed: int) -> None:
    """Wait until some lines of a batch are answered, and not all."""
    poll(lambda: counted(client.batches.retrieve(batch_id))[1] >= completed, "some answers")
    assert client.batches.retrieve(batch_id).status == "in_progress"


def lines_of(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def ids_of(lines: list[dict[str, Any]]) -> list[str]:
    return [line["custom_id"] for line in lines]


def ledger(data: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return tokens in, tokens out, cost and whether at a batch's price, by request."""
    database = sqlite3.connect(data / "tunery.db")
    rows = database.execute(
        "SELECT request_id, input_tokens, output_tokens, cost_nanodollars, batch FROM usage"
    ).fetchall()
    database.close()
    return {row[0]: row[1:] for row in rows}


def assert_each_once(client: OpenAI, batch: Batch, server: Server, before: set[str]) -> None:
    """Look that every line of a completed batch is answered once, charged once, and no more is."""
    assert (batch.status, counted(batch)) == ("completed", (MANY, MANY, 0))
    lines = lines_of(client, batch.output_file_id)
    assert ids_of(lines) == [f"request-{n}" for n in range(MANY)]
    assert batch.error_file_id is None
    asked = {line["response"]["request_id"] for line in lines}
    assert len(asked) == MANY
    assert set(ledger(server.data)) - before == asked


@pytest.fixture(scope="module")
def harmed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("batches")
    with Server(folder, models, TUNERY_SWEEP_S="0.5") as running:
        yield running


# ---- answered


def test_a_batch_is_answered_line_by_line_into_two_files_at_half_the_price(
    server: Server, client: OpenAI
) -> None:
    good = [request(n) for n in range(25)]
    bad = [
        request(25, temperature=9),
        request(26, stream=True),
        request(27, max_tokens=10**6),
        request(28, tools=[{"type": "custom", "custom": {"name": "f"}}]),
        request(29, messages="hi"),
    ]
    batch = create(client, file_of(*good[:20], *bad, *good[20:]), metadata={"night": "1"})
    assert (batch.status, batch.endpoint, batch.metadata) == ("validating", URL, {"night": "1"})
    assert batch.expires_at == batch.created_at + 24 * 3600
    batch = ended(client, batch.id)
    assert (batch.status, batch.errors, batch.model) == ("completed", None, BASE)
    assert counted(batch) == (30, 25, 5)
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0)
    assert (batch.finalizing_at or 0) <= (batch.completed_at or 0)
    assert (batch.failed_at, batch.cancelling_at, batch.expired_at) == (None,) * 3

    output = lines_of(client, batch.output_file_id)
    assert ids_of(output) == [f"request-{n}" for n in range(25)]
    assert len({line["id"] for line in output}) == 25
    asked = client.chat.completions.create(**good[3]["body"])
    for line in output:
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"].startswith("req_")
    body = output[3]["response"]["body"]
    assert (body["object"], body["model"]) == ("chat.completion", BASE)
    assert body["choices"][0]["message"]["content"] == asked.choices[0].message.content

    errors = lines_of(client, batch.error_file_id)
    told = [(line["response"]["status_code"], line["response"]["body"]["error"]) for line in errors]
    assert ids_of(errors) == [f"request-{n}" for n in range(25, 30)]
    assert [status for status, _ in told] == [400] * 5
    assert [error["param"] for _, error in told] == [
        "temperature",
        "stream",
        "messages",
        "tools.0.type",
        "messages",
    ]
    assert all(set(error) == {"message", "type", "param", "code"} for _, error in told)

    usages = [line["response"]["body"]["usage"] for line in output]
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    charged = ledger(server.data)
    # $1.50 and $2.00 a million tokens, halved: 750 and 1,000 nanodollars a token.
    for line, usage in zip(output, usages, strict=True):
        tokens = (usage["prompt_tokens"], usage["completion_tokens"])
        cost = 750 * tokens[0] + 1_000 * tokens[1]
        assert charged[line["response"]["request_id"]] == (*tokens, cost, 1)


@pytest.mark.parametrize(
    ("url", "body", "kind"),
    [
        (
            "/v1/completions",
            {"model": BASE, "prompt": ["a", "b"], "best_of": 2, "max_tokens": 3},
            "text_completion",
        ),
        ("/v1/moderations", {"model": "omni-moderation-latest", "input": "hi"}, None),
    ],
)
def test_other_endpoints_are_asked_in_batches_too(
    client: OpenAI, url: str, body: dict[str, Any], kind: str | None
) -> None:
    lines = [{**request(n), "url": url, "body": body} for n in range(3)]
    batch = ended(client, create(client, file_of(*lines), url).id)
    assert (batch.status, counted(batch)) == ("completed", (3, 3, 0))
    for line in lines_of(client, batch.output_file_id):
        assert line["response"]["body"].get("object") == kind
        assert line["response"]["body"]["model"] == body["model"]


def test_the_files_of_a_batch_are_its_owners_to_list_and_to_delete(client: OpenAI) -> None:
    batch = create(client, file_of(request(1), request(2, n=0)))
    batch = ended(client, batch.id)
    for file_id, name in ((batch.output_file_id, "output"), (batch.error_file_id, "error")):
        assert file_id is not None
        file = client.files.retrieve(file_id)
        assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_{name}.jsonl")
        assert (file.status, file.expires_at) == ("processed", None)
        assert file.bytes == len(client.files.content(file_id).content)
        assert client.files.delete(file_id).deleted
    assert client.files.delete(batch.input_file_id).deleted


def test_the_files_of_a_batch_expire_when_it_was_asked_for(client: OpenAI) -> None:
    after: Any = {"anchor": "created_at", "seconds": 3600}
    batch = ended(client, create(client, file_of(request(1)), output_expires_after=after).id)
    assert batch.output_file_id is not None
    file = client.files.retrieve(batch.output_file_id)
    assert file.expires_at == file.created_at + 3600


def test_a_file_with_bad_lines_fails_its_batch_and_each_is_named(client: OpenAI) -> None:
    lines = [
        json.dumps(request(1)),
        json.dumps(request(1)),
        "",
        json.dumps({**request(2), "method": "GET"}),
        json.dumps({**request(3), "url": "/v1/embeddings"}),
        json.dumps(request(4, model="another")),
    ]
    batch = ended(client, create(client, "\n".join(lines).encode()).id)
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert counted(batch) == (0, 0, 0)
    assert batch.errors is not None
    assert batch.errors.object == "list"
    assert [(e.line, e.code, e.param) for e in batch.errors.data or []] == [
        (2, "duplicate_custom_id", "custom_id"),
        (4, "invalid_method", "method"),
        (5, "invalid_url", "url"),
        (6, "mismatched_model", "body.model"),
    ]


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"endpoint": "/v1/nothing"}, "endpoint", "invalid_value"),
        ({"completion_window": "1h"}, "completion_window", "invalid_value"),
        ({"input_file_id": "file-none"}, "input_file_id", "invalid_file"),
        ({"input_file_id": "{training}"}, "input_file_id", "invalid_file"),
        ({"priority": 1}, "priority", "unknown_parameter"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "invalid_value"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
            "output_expires_after.seconds",
            "invalid_value",
        ),
        (
            {"output_expires_after": {"anchor": "last_active_at", "seconds": 3600}},
            "output_expires_after.anchor",
            "invalid_value",
        ),
    ],
)
def test_a_batch_that_cannot_be_honoured_is_refused(
    server: Server, client: OpenAI, changes: dict[str, Any], param: str, code: str
) -> None:
    training = client.files.create(file=("t.jsonl", chat_lines(10)), purpose="fine-tune").id
    input_file = client.files.create(file=("b.jsonl", file_of(request(1))), purpose="batch").id
    body = {"input_file_id": input_file, "endpoint": URL, "completion_window": "24h"}
    body |= {k: training if v == "{training}" else v for k, v in changes.items()}
    response = server.http().post("/v1/batches", json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


def test_batches_are_listed_newest_first_and_a_repeated_creation_makes_one(
    client: OpenAI,
) -> None:
    file = client.files.create(file=("b.jsonl", file_of(request(1))), purpose="batch")
    body: Any = {"input_file_id": file.id, "endpoint": URL, "completion_window": "24h"}
    made = [client.batches.create(**body).id for _ in range(3)]
    headers = {"Idempotency-Key": "one night"}
    once = [client.batches.create(**body, extra_headers=headers).id for _ in range(2)]
    assert once[0] == once[1]
    with pytest.raises(openai.ConflictError):
        client.batches.create(**body, metadata={"a": "b"}, extra_headers=headers)
    expected = [once[0], *made[::-1]]
    page = client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == expected[:2]
    assert page.has_more
    page = page.get_next_page()
    assert [batch.id for batch in page.data] == expected[2:4]
    with pytest.raises(openai.BadRequestError):
        client.batches.list(limit=101)
    for batch_id in expected:
        ended(client, batch_id)


# ---- another's


@pytest.fixture(scope="module")
def stranger(server: Server) -> httpx2.Client:
    return server.http(server.new_key("--new-project", "stranger to batches")[1])


def test_anothers_batch_answers_as_an_unknown_one(client: OpenAI, stranger: httpx2.Client) -> None:
    batch = create(client, file_of(request(1)))
    unknown = "batch_" + "0" * 24
    for verb, path in (
        ("GET", "/v1/batches/{}"),
        ("POST", "/v1/batches/{}/cancel"),
        ("GET", "/v1/batches?after={}"),
    ):
        told = [stranger.request(verb, path.format(i)) for i in (batch.id, unknown)]
        assert told[0].status_code == told[1].status_code
        assert told[0].status_code in (400, 404)
        assert told[0].text.replace(batch.id, unknown) == told[1].text
    response = stranger.get(f"/v1/batches/{batch.id}")
    assert response.status_code == 404
    message = response.json()["error"]["message"]
    assert message == f"No batch found with id '{batch.id}'."
    assert stranger.get("/v1/batches").json()["data"] == []
    body = {"input_file_id": batch.input_file_id, "endpoint": URL, "completion_window": "24h"}
    assert stranger.post("/v1/batches", json=body).json()["error"]["code"] == "invalid_file"
    assert ended(client, batch.id).status == "completed"


# ---- stopped, out of time, killed


def test_a_killed_workers_batch_goes_on_and_each_line_is_answered_and_charged_once(
    harmed: Server,
) -> None:
    client, before = harmed.client(), set(ledger(harmed.data))
    batch = create(client, long_file())
    come_to(client, batch.id, 3)
    harmed.child("work").send(signal.SIGKILL)
    assert_each_once(client, ended(client, batch.id), harmed, before)


def test_a_batch_survives_a_kill_of_everything(harmed: Server) -> None:
    client, before = harmed.client(), set(ledger(harmed.data))
    batch = create(client, long_file())
    come_to(client, batch.id, 3)
    left = harmed.kill()
    poll(lambda: not [process for process in left if process.lives], "the end of every process")
    harmed.start()
    client = harmed.client()
    assert_each_once(client, ended(client, batch.id), harmed, before)


def test_a_killed_engine_costs_no_line(harmed: Server) -> None:
    client, before = harmed.client(), set(ledger(harmed.data))
    batch = create(client, long_file())
    come_to(client, batch.id, 3)
    harmed.child("engine").send(signal.SIGKILL)
    assert_each_once(client, ended(client, batch.id), harmed, before)
    harmed.wait_until_ready()


def test_a_cancelled_batch_ends_with_what_was_answered(harmed: Server) -> None:
    client = harmed.client()
    batch = create(client, long_file())
    come_to(client, batch.id, 3)
    waiting = create(client, long_file(3))
    with pytest.raises(openai.ConflictError) as refused:
        client.files.delete(batch.input_file_id)
    assert refused.value.code == "file_in_use"
    for one in (waiting, batch):
        assert client.batches.cancel(one.id).status == "cancelling"
    batch = ended(client, batch.id)
    assert batch.status == "cancelled"
    assert (batch.cancelling_at or 0) <= (batch.cancelled_at or 0)
    total, completed, failed = counted(batch)
    assert (total, failed) == (MANY, 0)
    assert 3 <= completed < MANY
    output = lines_of(client, batch.output_file_id)
    errors = lines_of(client, batch.error_file_id)
    assert len(output) == completed
    assert sorted(ids_of(output + errors)) == sorted(f"request-{n}" for n in range(MANY))
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert {line["response"] for line in errors} == {None}
    # Only what was delivered is charged.
    asked = [f"req_{line['id'].removeprefix('batch_req_')}" for line in output + errors]
    assert len(ledger(harmed.data).keys() & set(asked)) == completed
    assert ended(client, waiting.id).status == "cancelled"
    with pytest.raises(openai.ConflictError) as refused:
        client.batches.cancel(batch.id)
    assert refused.value.code == "batch_not_cancellable"
    assert client.files.delete(batch.input_file_id).deleted
    poll(lambda: harmed.engine_rows() == 0, "an engine without abandoned answers")


def test_a_batch_out_of_time_ends_with_what_was_answered(harmed: Server) -> None:
    client = harmed.client()
    batch = create(client, long_file())
    come_to(client, batch.id, 3)
    database = sqlite3.connect(harmed.data / "tunery.db", timeout=10)
    with database:
        database.execute(
            "UPDATE batches SET expires_at = CAST(strftime('%s','now') AS INTEGER) WHERE id = ?",
            (batch.id,),
        )
    database.close()
    batch = ended(client, batch.id)
    assert batch.status == "expired"
    assert (batch.expires_at or 0) <= (batch.expired_at or 0)
    output = lines_of(client, batch.output_file_id)
    errors = lines_of(client, batch.error_file_id)
    assert len(output) == counted(batch)[1] >= 3
    assert sorted(ids_of(output + errors)) == sorted(f"request-{n}" for n in range(MANY))
    assert [line["error"] for line in errors] == [
        {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        }
    ] * (MANY - len(output))


def test_a_batch_goes_on_when_the_key_that_made_it_is_revoked(harmed: Server) -> None:
    key_id, secret = harmed.new_key("--name", "to be revoked")
    made = create(harmed.client(secret), long_file(20))
    assert harmed.tunery("keys", "revoke", key_id).returncode == 0
    batch = ended(harmed.client(), made.id)
    assert (batch.status, counted(batch)) == ("completed", (20, 20, 0))
