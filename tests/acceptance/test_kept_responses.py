"""Responses that are kept: listed, deleted, another's, past their time; counted; asked for once."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response

from support.server import BASE, CONTEXT, Server, poll

PATH = "/v1/responses"
GREEDY: dict[str, Any] = {"model": BASE, "temperature": 0, "max_output_tokens": 16}


@pytest.fixture(scope="module")
def http(server: Server) -> httpx2.Client:
    return server.http()


def error_of(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


def tokens(response: Response) -> tuple[int, int]:
    assert response.usage is not None
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    return usage.input_tokens, usage.output_tokens


def same_stored(client: OpenAI, response: Response) -> None:
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()


# ---- kept


def test_what_a_response_was_made_from_is_listed_newest_first(client: OpenAI) -> None:
    first = client.responses.create(**GREEDY, input="one")
    second = client.responses.create(
        **GREEDY,
        input=[
            {"role": "developer", "content": "two"},
            {"role": "user", "content": [{"type": "input_text", "text": "three"}]},
        ],
        previous_response_id=first.id,
    )
    wanted = ["one", first.output_text, "two", "three"]

    def texts(**query: Any) -> Iterator[str]:
        for item in client.responses.input_items.list(second.id, **query):
            assert item.type == "message"
            assert item.content[0].type in ("input_text", "output_text")
            yield item.content[0].text

    assert list(texts()) == wanted[::-1]
    assert list(texts(order="asc", limit=1)) == wanted
    assert list(texts(order="desc", limit=3)) == wanted[::-1]
    page = client.responses.input_items.list(second.id, order="asc")
    assert [item.role for item in page.data if item.type == "message"] == [
        "user",
        "assistant",
        "developer",
        "user",
    ]
    assert page.data[1].id == first.output[0].id
    with pytest.raises(openai.BadRequestError):
        client.responses.input_items.list(second.id, after="msg_x")


def test_a_deleted_response_is_gone(client: OpenAI, http: httpx2.Client) -> None:
    response = client.responses.create(**GREEDY, input="hi")
    assert http.delete(f"{PATH}/{response.id}").json() == {
        "id": response.id,
        "object": "response",
        "deleted": True,
    }
    for act in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            act(response.id)
        assert f"Response with id '{response.id}' not found." in caught.value.message


def test_nothing_can_be_cancelled(client: OpenAI) -> None:
    response = client.responses.create(**GREEDY, input="hi")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_x")


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", "{id}", None),
        ("DELETE", "{id}", None),
        ("POST", "{id}/cancel", None),
        ("GET", "{id}/input_items", None),
        ("POST", "", {**GREEDY, "input": "x", "previous_response_id": "{id}"}),
        ("POST", "input_tokens", {"model": BASE, "previous_response_id": "{id}"}),
    ],
)
def test_anothers_response_answers_as_an_unknown_one(
    server: Server, verb: str, path: str, body: dict[str, Any] | None
) -> None:
    stranger = server.http(server.new_key("--new-project", "reader")[1])
    response = server.client().responses.create(**GREEDY, input="hi")
    told = []
    for name in (response.id, "resp_" + "0" * 24):
        filled = body and {k: name if v == "{id}" else v for k, v in body.items()}
        place = f"{PATH}/{path.format(id=name)}".rstrip("/")
        answer = stranger.request(verb, place, json=filled)
        told.append((answer.status_code, answer.text.replace(name, "<id>")))
    assert told[0] == told[1]
    assert told[0][0] in (400, 404)
    same_stored(server.client(), response)


def test_text_is_kept_and_ends_with_its_time(models: Path, tmp_path: Path) -> None:
    settings = {"TUNERY_RESPONSES_KEPT_DAYS": "2", "TUNERY_SWEEP_S": "0.2"}
    with Server(tmp_path, models, **settings) as server:
        client = server.client()
        response = client.responses.create(**GREEDY, input="hi")
        server.kill()
        server.start()
        client = server.client()
        same_stored(client, response)
        database = sqlite3.connect(server.data / "tunery.db", timeout=10)
        ((kept,),) = database.execute("SELECT expires_at - created_at FROM responses").fetchall()
        assert kept == 2 * 86_400
        with database:
            database.execute("UPDATE responses SET expires_at = 1")
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response.id)
        count = "SELECT count(*) FROM responses"
        poll(lambda: database.execute(count).fetchone() == (0,), "the sweeper removing it")
        database.close()


# ---- counted


def test_an_inputs_tokens_are_counted_without_an_answer(client: OpenAI) -> None:
    first = client.responses.create(**GREEDY, input="ask 001", instructions="Be brief.")
    second = client.responses.create(**GREEDY, input="ask 002", previous_response_id=first.id)
    count = client.responses.input_tokens.count
    alone = count(model=BASE, input="ask 001", instructions="Be brief.")
    assert (alone.object, alone.input_tokens) == ("response.input_tokens", tokens(first)[0])
    chained = count(model=BASE, input="ask 002", previous_response_id=first.id)
    assert chained.input_tokens == tokens(second)[0]
    assert count(model=BASE, input="a " * CONTEXT).input_tokens > CONTEXT
    with pytest.raises(openai.BadRequestError) as caught:
        count(model=BASE, input="x" * 1_000_000)
    assert caught.value.code == "context_length_exceeded"


# ---- once


def test_a_creation_sent_again_under_its_key_makes_nothing_new(
    client: OpenAI, http: httpx2.Client
) -> None:
    headers = {"Idempotency-Key": "respond-once"}
    body = {**GREEDY, "input": "hi", "temperature": 1}
    first = http.post(PATH, json=body, headers=headers).json()
    assert http.post(PATH, json=body, headers=headers).json() == first
    changed = http.post(PATH, json={**body, "input": "ho"}, headers=headers)
    assert error_of(changed, 409)["code"] == "idempotency_key_reused"
    deep = b'{"model": "m", "input": ' + b"[" * 500 + b"]" * 500 + b"}"
    assert error_of(http.post(PATH, content=deep, headers=headers), 400)
    headers = {"Idempotency-Key": "stream-once"}
    body["stream"] = True
    assert http.post(PATH, json=body, headers=headers).status_code == 200
    again = error_of(http.post(PATH, json=body, headers=headers), 409)
    stored = again["message"].partition(" kept as ")[2].partition(":")[0]
    assert client.responses.retrieve(stored).status in ("completed", "incomplete")
