"""/v1/responses with OpenAI's own SDK: whole, streamed, gone on from, kept, deleted."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response

from support.server import BASE, CONTEXT, Server, Tuned, poll

PATH = "/v1/responses"
GREEDY: dict[str, Any] = {"model": BASE, "temperature": 0, "max_output_tokens": 16}


@pytest.fixture(scope="module")
def http(server: Server) -> httpx2.Client:
    return server.http()


def tokens(response: Response) -> tuple[int, int]:
    assert response.usage is not None
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    return usage.input_tokens, usage.output_tokens


def same_stored(client: OpenAI, response: Response) -> None:
    assert client.responses.retrieve(response.id).to_dict() == response.to_dict()


# ---- whole


def test_an_input_is_answered_as_the_same_chat_is(client: OpenAI) -> None:
    response = client.responses.create(
        **GREEDY, input="ask 001", instructions="Be brief.", metadata={"team": "blue"}, user="u-1"
    )
    chat = client.chat.completions.create(
        model=BASE,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "ask 001"},
        ],
        temperature=0,
        max_tokens=16,
    )
    assert chat.usage is not None
    assert response.output_text == chat.choices[0].message.content
    assert tokens(response) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    cut_off = chat.choices[0].finish_reason == "length"
    assert response.status == ("incomplete" if cut_off else "completed")
    assert (response.incomplete_details is not None) == cut_off
    assert (response.instructions, response.metadata) == ("Be brief.", {"team": "blue"})
    assert (response.user, response.model, response.temperature) == ("u-1", BASE, 0)
    assert response.id.startswith("resp_")
    assert response.output[0].id is not None
    assert response.output[0].id.startswith("msg_")
    same_stored(client, response)


def test_a_tuned_models_answer_ends_by_itself_and_is_completed(
    client: OpenAI, tuned: Tuned
) -> None:
    response = client.responses.create(model=tuned.model, input="ask 001", temperature=0)
    assert (response.output_text, response.status) == ("yes", "completed")
    assert (response.error, response.incomplete_details) == (None, None)
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    assert response.output[0].type == "message"
    assert response.output[0].status == "completed"


def test_an_answer_that_meets_its_limit_is_incomplete(client: OpenAI) -> None:
    response = client.responses.create(**GREEDY, input="go on and on")
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )
    assert tokens(response)[1] == 16
    assert response.completed_at is None
    assert response.output[0].type == "message"
    assert response.output[0].status == "incomplete"


def test_messages_in_every_form_are_one_conversation(client: OpenAI) -> None:
    plain = client.responses.create(
        **GREEDY,
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "ask 001"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "ask 002"},
        ],
    )
    parts = client.responses.create(
        **GREEDY,
        input=[
            {
                "type": "message",
                "role": "system",
                "content": [{"type": "input_text", "text": "Be brief."}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "ask 001"}]},
            {
                "type": "message",
                "id": "msg_1",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}
                ],
            },
            {"type": "message", "role": "user", "content": "ask 002"},
        ],
    )
    assert parts.output_text == plain.output_text
    assert tokens(parts) == tokens(plain)


def test_log_probabilities_are_those_of_chat(client: OpenAI) -> None:
    response = client.responses.create(
        **GREEDY, input="hi", include=["message.output_text.logprobs"], top_logprobs=2
    )
    chat = client.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "hi"}],
        temperature=0,
        max_tokens=16,
        logprobs=True,
        top_logprobs=2,
    )
    assert response.output[0].type == "message"
    part = response.output[0].content[0]
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert chat.choices[0].logprobs is not None
    wanted = chat.choices[0].logprobs.content
    assert wanted is not None
    assert [(t.token, t.logprob, len(t.top_logprobs)) for t in part.logprobs] == [
        (t.token, t.logprob, len(t.top_logprobs)) for t in wanted
    ]
    assert len(part.logprobs) > 0
    same_stored(client, response)


# ---- streamed


@pytest.mark.parametrize("store", [True, False])
def test_a_stream_is_the_whole_answer_in_numbered_events(client: OpenAI, store: bool) -> None:
    whole = client.responses.create(**GREEDY, input="ask 001", store=False)
    events = list(client.responses.create(**GREEDY, input="ask 001", stream=True, store=store))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ]
    assert len(deltas) > 1
    assert "".join(event.delta for event in deltas) == whole.output_text
    first, text, last = events[0], events[-4], events[-1]
    assert first.type == "response.created"
    assert (first.response.status, first.response.output) == ("in_progress", [])
    assert text.type == "response.output_text.done"
    assert text.text == whole.output_text
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.id == first.response.id
    assert last.response.output_text == whole.output_text
    assert tokens(last.response) == tokens(whole)
    ids = {event.item_id for event in deltas} | {last.response.output[0].id}
    assert len(ids) == 1
    if store:
        same_stored(client, last.response)
    else:
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(last.response.id)


def test_the_sdks_stream_helper_takes_the_events(client: OpenAI, tuned: Tuned) -> None:
    with client.responses.stream(model=tuned.model, input="ask 001", temperature=0) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert (text, final.output_text, final.status) == ("yes", "yes", "completed")


def test_events_are_named_and_no_done_follows(http: httpx2.Client) -> None:
    body = {
        **GREEDY,
        "input": "hi",
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }
    with http.stream("POST", PATH, json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    for name, data in blocks:
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert "obfuscation" not in event
    assert blocks[-1][0] == "event: response.incomplete"


# ---- going on


def test_a_chain_carries_the_whole_conversation_but_not_its_instructions(client: OpenAI) -> None:
    first = client.responses.create(**GREEDY, input="ask 001", instructions="A secret rule.")
    second = client.responses.create(**GREEDY, input="ask 002", previous_response_id=first.id)
    third = client.responses.create(
        **GREEDY, input="ask 003", previous_response_id=second.id, store=False
    )
    assert second.previous_response_id == first.id
    written_out: list[Any] = [
        {"role": "user", "content": "ask 001"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "ask 002"},
    ]
    by_hand = client.responses.create(**GREEDY, input=written_out, store=False)
    assert tokens(second) == tokens(by_hand)
    assert second.output_text == by_hand.output_text
    written_out += [
        {"role": "assistant", "content": second.output_text},
        {"role": "user", "content": "ask 003"},
    ]
    by_hand = client.responses.create(**GREEDY, input=written_out, store=False)
    assert tokens(third) == tokens(by_hand)
    assert third.output_text == by_hand.output_text
    alone = client.responses.create(**GREEDY, input="ask 003", store=False)
    assert tokens(alone)[0] < tokens(second)[0] < tokens(third)[0]


def test_an_answer_can_be_sent_back_as_it_came(client: OpenAI) -> None:
    first = client.responses.create(
        **GREEDY, input="ask 001", include=["message.output_text.logprobs"]
    )
    chained = client.responses.create(**GREEDY, input="ask 002", previous_response_id=first.id)
    question: Any = {"role": "user", "content": "ask 001"}
    for output in (first.output, [item.model_dump() for item in first.output]):
        items: list[Any] = [question, *output, {"role": "user", "content": "ask 002"}]
        sent_back = client.responses.create(**GREEDY, input=items)
        assert tokens(sent_back) == tokens(chained)
        assert sent_back.output_text == chained.output_text
        kept = client.responses.input_items.list(sent_back.id, order="asc").data[1]
        assert kept.to_dict() == first.output[0].to_dict()
    with pytest.raises(openai.BadRequestError, match="Duplicate item found") as caught:
        client.responses.create(**GREEDY, input=items, previous_response_id=first.id)
    assert caught.value.param == "input.1.id"


def test_a_conversation_is_gone_on_from_after_a_stream_and_without_input(client: OpenAI) -> None:
    *_, last = client.responses.create(**GREEDY, input="ask 001", stream=True)
    assert last.type == "response.incomplete"
    on = client.responses.create(**GREEDY, previous_response_id=last.response.id)
    assert tokens(on)[0] > sum(tokens(last.response)) - 16


@pytest.mark.parametrize("which", ["unknown", "unstored", "deleted", "deleted earlier one"])
def test_going_on_from_what_is_not_there_is_refused(client: OpenAI, which: str) -> None:
    first = client.responses.create(**GREEDY, input="hi", store=which != "unstored")
    asked = missing = first.id
    if which == "unknown":
        asked = missing = "resp_" + "0" * 24
    if which == "deleted earlier one":
        asked = client.responses.create(**GREEDY, input="ho", previous_response_id=first.id).id
    if which.startswith("deleted"):
        client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**GREEDY, input="on", previous_response_id=asked)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"
    assert f"Previous response with id '{missing}' not found." in caught.value.message


def test_an_input_that_does_not_fit_is_refused_or_cut_from_the_front(client: OpenAI) -> None:
    items: list[Any] = [
        message
        for number in range(CONTEXT // 16)
        for message in (
            {"role": "user", "content": f"ask {number:03} and more"},
            {"role": "assistant", "content": "yes, and so on"},
        )
    ] + [{"role": "user", "content": "ask 001"}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**GREEDY, input=items, truncation="disabled")
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    cut = client.responses.create(**GREEDY, input=items, truncation="auto")
    assert cut.truncation == "auto"
    assert CONTEXT - 100 < tokens(cut)[0] <= CONTEXT - 16
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**GREEDY, input="word " * CONTEXT, truncation="auto")
    assert caught.value.code == "context_length_exceeded"


# ---- broken off


def test_a_client_that_goes_away_frees_its_row_and_nothing_is_kept(server: Server) -> None:
    poll(lambda: server.engine_rows() == 0, "an idle engine")
    stream = server.client().responses.create(
        model=BASE, input="hi", temperature=0, max_output_tokens=CONTEXT - 100, stream=True
    )
    created = next(stream)
    assert created.type == "response.created"
    while next(stream).type != "response.output_text.delta":
        pass
    stream.close()
    poll(lambda: server.engine_rows() == 0, "the row of the client that left")
    with pytest.raises(openai.NotFoundError):
        server.client().responses.retrieve(created.response.id)


def test_a_killed_engine_ends_a_stream_with_a_failed_response(models: Path, tmp_path: Path) -> None:
    with Server(tmp_path, models) as server:
        client = server.client()
        engine = server.child("engine")
        stream = client.responses.create(
            model=BASE, input="hi", temperature=0, max_output_tokens=CONTEXT - 100, stream=True
        )
        events = []
        for event in stream:
            events.append(event)
            if len(events) == 6:
                engine.send(signal.SIGKILL)
        last = events[-1]
        assert last.type == "response.failed"
        assert last.sequence_number == len(events) - 1
        assert last.response.status == "failed"
        assert last.response.error is not None
        assert last.response.error.code == "server_error"
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(last.response.id)
        server.wait_until_ready()
