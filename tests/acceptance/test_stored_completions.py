"""Chat completions that are stored, with OpenAI's own SDK: listed, fetched, labelled, deleted."""

from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from support.server import BASE, CONTEXT, Server, poll

PATH = "/v1/chat/completions"
GREEDY: dict[str, Any] = {"model": BASE, "temperature": 0, "max_tokens": 4}
HI: list[Any] = [{"role": "user", "content": "hi"}]
GONE = "chatcmpl-" + "0" * 24


@pytest.fixture(scope="module")
def own(server: Server) -> OpenAI:
    """Return a client of a project that no other test writes to."""
    return server.client(server.new_key("--new-project", "storing")[1])


@pytest.fixture(scope="module")
def stored(own: OpenAI) -> list[ChatCompletion]:
    """Return four stored completions, in their order."""
    made = []
    for number in range(4):
        labels = {"kind": "even" if number % 2 == 0 else "odd", "number": str(number)}
        made.append(
            own.chat.completions.create(
                **{**GREEDY, "model": "tiny" if number == 3 else BASE},
                messages=[
                    {"role": "developer", "content": f"rule {number}"},
                    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                    {"role": "assistant", "content": "hello"},
                    {"role": "user", "content": "again"},
                ],
                store=True,
                metadata=labels if number else {},
                seed=number,
                user="u-1",
            )
        )
    own.chat.completions.create(**GREEDY, messages=HI)
    own.chat.completions.create(**GREEDY, messages=HI, store=False)
    return made


def ids(page: Any) -> list[str]:
    return [completion.id for completion in page]


def test_a_stored_completion_is_fetched_as_it_was_answered(
    own: OpenAI, stored: list[ChatCompletion]
) -> None:
    answered = stored[1].to_dict()
    fetched = own.chat.completions.retrieve(stored[1].id).to_dict()
    extra = {name: fetched.pop(name) for name in list(fetched) if name not in answered}
    assert fetched == answered
    assert fetched["metadata"] == {"kind": "odd", "number": "1"}
    assert str(extra.pop("request_id")).startswith("req_")
    assert extra == {
        "input_user": "u-1",
        "seed": 1,
        "temperature": 0,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "tools": None,
        "tool_choice": None,
        "response_format": None,
    }
    assert own.chat.completions.retrieve(stored[0].id).metadata == {}


def test_only_what_was_to_be_stored_is_listed_oldest_first(
    own: OpenAI, stored: list[ChatCompletion]
) -> None:
    every = [one.id for one in stored]
    completions = own.chat.completions
    assert ids(completions.list()) == every
    assert ids(completions.list(limit=1)) == every
    assert ids(completions.list(order="desc", limit=3)) == every[::-1]
    assert ids(completions.list(after=every[1])) == every[2:]
    assert ids(completions.list(model="tiny")) == every[3:]
    assert ids(completions.list(metadata={"kind": "odd"})) == [every[1], every[3]]
    assert ids(completions.list(metadata={"kind": "odd", "number": "3"})) == every[3:]
    assert ids(completions.list(metadata={"kind": "none"})) == []
    page = completions.list(limit=2).to_dict()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (every[0], every[1], True)
    assert page["object"] == "list"
    for query in ({"after": GONE}, {"limit": 0}, {"limit": 101}, {"order": "up"}):
        with pytest.raises(openai.BadRequestError):
            completions.list(**query)


def test_completions_without_metadata_are_found_by_that(
    server: Server, own: OpenAI, stored: list[ChatCompletion]
) -> None:
    http = server.http(own.api_key)
    found = http.get(PATH, params={"metadata": "null"}).json()["data"]
    assert [one["id"] for one in found] == [stored[0].id]


def test_the_messages_of_a_completion_are_listed_with_their_parts(
    own: OpenAI, stored: list[ChatCompletion]
) -> None:
    name = stored[2].id
    listed = list(own.chat.completions.messages.list(name, limit=3))
    assert [message.id for message in listed] == [f"{name}-{n}" for n in range(4)]
    told: list[Any] = [(m.to_dict()["role"], m.content, m.content_parts) for m in listed]
    assert told[0] == ("developer", "rule 2", None)
    assert told[1][:2] == ("user", None)
    assert [part.to_dict() for part in told[1][2]] == [{"type": "text", "text": "hi"}]
    assert told[2:] == [("assistant", "hello", None), ("user", "again", None)]
    newest = own.chat.completions.messages.list(name, order="desc", limit=1)
    assert [m.id for m in newest.data] == [f"{name}-3"]
    assert newest.has_more
    after = own.chat.completions.messages.list(name, after=f"{name}-2")
    assert [m.id for m in after.data] == [f"{name}-3"]


def test_metadata_is_changed_and_found_by_at_once(own: OpenAI) -> None:
    completions = own.chat.completions
    one = completions.create(**GREEDY, messages=HI, store=True, metadata={"old": "1"})
    updated = completions.update(one.id, metadata={"new": "2"})
    assert updated.metadata == {"new": "2"}
    assert completions.retrieve(one.id).metadata == {"new": "2"}
    assert ids(completions.list(metadata={"new": "2"})) == [one.id]
    assert ids(completions.list(metadata={"old": "1"})) == []
    assert completions.update(one.id, metadata=None).metadata == {}
    assert ids(completions.list(metadata={"new": "2"})) == []
    completions.update(one.id, metadata={"new": "3"})
    deleted = completions.delete(one.id)
    assert deleted.to_dict() == {
        "id": one.id,
        "object": "chat.completion.deleted",
        "deleted": True,
    }
    assert ids(completions.list(metadata={"new": "3"})) == []
    with pytest.raises(openai.NotFoundError) as caught:
        completions.retrieve(one.id)
    assert f"Chat completion {one.id} not found." in caught.value.message


@pytest.mark.parametrize(
    "body",
    [{}, {"metadata": 5}, {"metadata": {"a": 1}}, {"metadata": {}, "model": "x"}],
)
def test_only_metadata_can_be_changed(
    server: Server, own: OpenAI, stored: list[ChatCompletion], body: dict[str, Any]
) -> None:
    answer = server.http(own.api_key).post(f"{PATH}/{stored[1].id}", json=body)
    assert answer.status_code == 400, answer.text


def test_a_streamed_completion_is_stored_whole(own: OpenAI) -> None:
    chunks = list(
        own.chat.completions.create(
            **GREEDY,
            messages=HI,
            n=2,
            seed=1,
            stream=True,
            store=True,
            metadata={"by": "stream"},
            stream_options={"include_usage": True},
        )
    )
    stored = own.chat.completions.retrieve(chunks[0].id)
    for index, choice in enumerate(stored.choices):
        text = "".join(
            c.choices[0].delta.content or ""
            for c in chunks
            if c.choices and c.choices[0].index == index
        )
        assert choice.message.content == text
        assert choice.finish_reason == "length"
    assert len(stored.choices) == 2
    assert stored.usage == chunks[-1].usage
    assert (stored.created, stored.model) == (chunks[0].created, BASE)
    own.chat.completions.delete(stored.id)


def test_a_creation_sent_again_under_its_key_stores_nothing_new(
    server: Server, own: OpenAI
) -> None:
    http = server.http(own.api_key)
    headers = {"Idempotency-Key": "complete-once"}
    body: dict[str, Any] = {
        **GREEDY,
        "temperature": 1,
        "messages": HI,
        "store": True,
        "metadata": {"by": "key"},
    }
    first = http.post(PATH, json=body, headers=headers).json()
    assert http.post(PATH, json=body, headers=headers).json() == first
    assert ids(own.chat.completions.list(metadata={"by": "key"})) == [first["id"]]
    changed = http.post(PATH, json={**body, "seed": 1}, headers=headers)
    assert (changed.status_code, changed.json()["error"]["param"]) == (409, "Idempotency-Key")
    headers = {"Idempotency-Key": "stream-once"}
    streamed = {**body, "stream": True}
    assert http.post(PATH, json=streamed, headers=headers).status_code == 200
    again = http.post(PATH, json=streamed, headers=headers)
    assert again.status_code == 409
    for one in own.chat.completions.list(metadata={"by": "key"}):
        own.chat.completions.delete(one.id)


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", "/{id}", None),
        ("POST", "/{id}", {"metadata": {"a": "b"}}),
        ("DELETE", "/{id}", None),
        ("GET", "/{id}/messages", None),
        ("GET", "?after={id}", None),
    ],
)
def test_anothers_completion_answers_as_an_unknown_one(
    client: OpenAI,
    server: Server,
    own: OpenAI,
    stored: list[ChatCompletion],
    verb: str,
    path: str,
    body: dict[str, Any] | None,
) -> None:
    stranger = server.http()
    name = stored[1].id
    before = own.chat.completions.retrieve(name)
    told: list[tuple[int, str]] = []
    for asked in (name, GONE):
        answer: httpx2.Response = stranger.request(verb, PATH + path.format(id=asked), json=body)
        told.append((answer.status_code, answer.text.replace(asked, "<id>")))
    assert told[0] == told[1]
    assert told[0][0] in (400, 404)
    assert own.chat.completions.retrieve(name) == before
    assert name not in ids(client.chat.completions.list())


def test_a_client_that_goes_away_leaves_nothing_stored(server: Server, own: OpenAI) -> None:
    stream = own.chat.completions.create(
        **{**GREEDY, "max_tokens": CONTEXT - 100},
        messages=HI,
        stream=True,
        store=True,
        metadata={"by": "leaver"},
    )
    next(stream)
    stream.close()
    poll(lambda: server.engine_rows() == 0, "the row of the client that left")
    assert ids(own.chat.completions.list(metadata={"by": "leaver"})) == []
