"""Responses: what is refused, how items are read, and how answers are written."""

import dataclasses
from typing import Any, get_type_hints

import pytest
from openai.types.responses import Response, ResponseStreamEvent, input_token_count_params
from openai.types.responses import response_create_params as sdk
from pydantic import TypeAdapter

from tunery.datasets.heard import Heard
from tunery.datasets.tool_calls import Said
from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import Delta, TokenLogprob
from tunery.domain.responses import StoredResponse
from tunery.protocol.response_request import CountInputTokensRequest, CreateResponseRequest
from tunery.protocol.responses import LISTED
from tunery.services.answers import Options
from tunery.wire.requests import from_wire_value
from tunery.wire.response_events import EventMaker
from tunery.wire.response_items import check_new, from_wire_input, to_messages
from tunery.wire.responses import (
    ResponseMaker,
    check_count,
    check_request,
    from_wire_response_options,
    to_wire_response,
)

FUNCTION = {"type": "function", "name": "f", "parameters": {}, "strict": True}
LOGPROBS = "message.output_text.logprobs"
# Each field that is not honoured: values that ask for nothing, and values that ask for something.
FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "access_programs": ([], [{}, {"cyber": "standard"}]),
    "background": ([False], [True]),
    "background_options": ([], [{"completion_window": "2h"}]),
    "context_management": ([], [[{"type": "compaction", "compact_threshold": 5}]]),
    "conversation": ([], ["conv_1", {"id": "conv_1"}]),
    "image": ([], [{"context_compression": "auto"}]),
    "max_tool_calls": ([], [1]),
    "moderation": ([], [{"model": "omni-moderation-latest"}]),
    "prompt": ([], [{"id": "pmpt_1", "variables": {"a": "b"}}]),
    "prompt_cache_options": ([], [{"mode": "implicit"}]),
    "prompt_cache_retention": ([], ["24h"]),
    "service_tier": (["auto", "default"], ["flex", "priority", "ultrafast"]),
}
HONOURED = {"model", "input", "instructions", "previous_response_id", "temperature", "top_p"}
HONOURED |= {"max_output_tokens", "top_logprobs", "include", "store", "stream", "stream_options"}
HONOURED |= {"metadata", "user", "safety_identifier", "truncation", "text", "reasoning"}
HONOURED |= {"tools", "tool_choice", "parallel_tool_calls", "prompt_cache_key"}


def request(**fields: Any) -> CreateResponseRequest:
    return from_wire_value({"model": "m", "input": "Hi", **fields}, CreateResponseRequest)


def refusal(**fields: Any) -> tuple[str | None, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        check_request(request(**fields))
    return caught.value.param, caught.value.code


# ---- what is refused


def test_every_field_of_openais_is_honoured_or_refused() -> None:
    theirs = {*get_type_hints(sdk.ResponseCreateParamsBase), "stream"}
    assert set(CreateResponseRequest.model_fields) == theirs == HONOURED | set(FIELDS)
    counted = set(get_type_hints(input_token_count_params.InputTokenCountParams))
    assert set(CountInputTokensRequest.model_fields) == counted


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (neutral, _) in FIELDS.items() for value in [None, *neutral]],
)
def test_a_value_that_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    check_request(request(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, asks) in FIELDS.items() for value in asks]
)
def test_a_value_that_asks_for_something_is_refused_by_name(name: str, value: Any) -> None:
    assert refusal(**{name: value}) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"effort": "none"}}, "reasoning.effort"),
        ({"reasoning": {"effort": None, "summary": "auto"}}, "reasoning.summary"),
        ({"include": [LOGPROBS, "reasoning.encrypted_content"]}, "include"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
    ],
)
def test_a_part_of_a_field_is_refused_by_its_own_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream_options": {}}, "stream_options"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields)[0] == param


def test_what_is_honoured_is_not_refused() -> None:
    sent = request(
        temperature=0.5,
        top_p=1,
        max_output_tokens=16,
        include=[LOGPROBS],
        top_logprobs=3,
        stream=True,
        stream_options={"include_obfuscation": False},
        text={"format": {"type": "text"}, "verbosity": "medium"},
        reasoning={"effort": None, "summary": None},
        truncation="auto",
        input="",
    )
    check_request(sent)
    assert from_wire_response_options(sent) == Options(
        max_tokens=16, temperature=0.5, top_p=1.0, top_logprobs=3
    )
    assert from_wire_response_options(request()) == Options()
    assert from_wire_response_options(request(include=[LOGPROBS])).top_logprobs == 0
    check_request(request(input=None, previous_response_id="resp_1"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"personality": "friendly"}, "personality"),
        ({"truncation": "auto"}, "truncation"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.type"),
    ],
)
def test_a_count_is_refused_what_an_answer_is(fields: dict[str, Any], param: str) -> None:
    asked = {"model": "m", "input": "Hi", **fields}
    with pytest.raises(InvalidRequest) as caught:
        check_count(from_wire_value(asked, CountInputTokensRequest))
    assert caught.value.param == param


# ---- items

QUESTION = {"type": "input_text", "text": "Hi"}
ANSWER = {"type": "output_text", "text": "Hello", "annotations": []}
CALL: dict[str, Any] = {
    "type": "function_call",
    "call_id": "c",
    "name": "f",
    "arguments": "{}",
}
OUTPUT: dict[str, Any] = {"type": "function_call_output", "call_id": "c", "output": "1"}
REFUSAL = {"type": "refusal", "refusal": "No"}
LIKELIHOOD = {
    "token": "Hello",
    "bytes": list(b"Hello"),
    "logprob": -0.5,
    "top_logprobs": [{"token": "Hi", "bytes": list(b"Hi"), "logprob": -2.0}],
}


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        (5, "input.0", "invalid_value"),
        ({"type": "unheard_of"}, "input.0.type", "invalid_value"),
        ({"role": "user", "content": "x", "name": "n"}, "input.0.name", "unknown_parameter"),
        ({"role": "robot", "content": "x"}, "input.0.role", "invalid_value"),
        ({"role": "user", "content": "x", "id": "mine"}, "input.0.id", "invalid_value"),
        (
            {"role": "assistant", "content": [{**ANSWER, "logprobs": [{"token": "Hello"}]}]},
            "input.0.content.0.logprobs.0.bytes",
            "missing_required_parameter",
        ),
        ({"role": "user"}, "input.0.content", "missing_required_parameter"),
        ({"role": "user", "content": [ANSWER]}, "input.0.content.0.type", "invalid_value"),
        ({"role": "user", "content": [{"type": "x"}]}, "input.0.content.0.type", "invalid_value"),
        (
            {"role": "user", "content": [{**QUESTION, "text": 5}]},
            "input.0.content.0.text",
            "invalid_value",
        ),
        (
            {"role": "assistant", "content": [ANSWER, QUESTION]},
            "input.0.content.1.type",
            "invalid_value",
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": [ANSWER]},
            "input.0.output.0.type",
            "invalid_value",
        ),
        (
            {"type": "function_call", "call_id": "", "name": "f", "arguments": ""},
            "input.0.call_id",
            "invalid_value",
        ),
    ],
)
def test_an_item_of_the_wrong_shape_is_refused_by_its_place(
    item: Any, param: str, code: str
) -> None:
    assert refusal(input=[item]) == (param, code)


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (CALL | {"namespace": "n"}, "namespace"),
        (CALL | {"async": True}, "async"),
        (OUTPUT | {"caller": {"type": "direct"}}, "caller"),
        (OUTPUT | {"name": "f"}, "name"),
        (OUTPUT | {"output": [{"type": "input_image", "image_url": "data:"}]}, "output.0.type"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}, "type"),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, "type"),
        ({"role": "assistant", "content": "x", "phase": "commentary"}, "phase"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]},
            "content.0.type",
        ),
        (
            {"role": "user", "content": [QUESTION, {"type": "input_file", "file_id": "f"}]},
            "content.1.type",
        ),
        (
            {"role": "assistant", "content": [{**ANSWER, "annotations": [{"type": "x"}]}]},
            "content.0.annotations",
        ),
        (
            {
                "role": "user",
                "content": [{**QUESTION, "prompt_cache_breakpoint": {"mode": "explicit"}}],
            },
            "content.0.prompt_cache_breakpoint",
        ),
    ],
)
def test_an_item_that_cannot_be_read_is_refused_by_name(item: dict[str, Any], field: str) -> None:
    before = {"role": "user", "content": "Hi"}
    assert refusal(input=[before, item]) == (f"input.1.{field}", "unsupported_parameter")


def test_an_item_is_taken_once() -> None:
    item = {"id": "msg_1", "role": "user", "content": "Hi"}
    other = {**item, "id": "msg_2"}
    check_request(request(input=[item, other]))
    assert refusal(input=[item, other, item]) == ("input.2.id", "invalid_value")


def test_messages_are_kept_in_parts_and_rendered_as_chat() -> None:
    sent = request(
        input=[
            {"role": "developer", "content": "Rule"},
            {"type": "message", "role": "user", "content": [QUESTION, QUESTION], "status": None},
            {
                "type": "message",
                "id": "msg_theirs",
                "status": "incomplete",
                "role": "assistant",
                "content": [{**ANSWER, "logprobs": [LIKELIHOOD]}],
                "phase": None,
            },
        ]
    )
    check_request(sent)
    items = from_wire_input(sent.input)
    listed = [LISTED.validate_python(item).model_dump() for item in items]
    assert listed == list(items)
    assert len({item["id"] for item in items}) == 3
    assert items[2]["id"] == "msg_theirs"
    assert [item["status"] for item in items] == ["completed", "completed", "incomplete"]
    assert [(item["role"], item["content"]) for item in items] == [
        ("developer", [{"type": "input_text", "text": "Rule"}]),
        ("user", [QUESTION, QUESTION]),
        ("assistant", [{**ANSWER, "logprobs": [LIKELIHOOD]}]),
    ]
    assert to_messages(items) == [
        {"role": "developer", "content": [{"type": "text", "text": "Rule"}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}] * 2},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
    ]
    (refused,) = from_wire_input(request(input=[{"role": "assistant", "content": [REFUSAL]}]).input)
    assert to_messages([refused])[0]["content"] == [{"type": "text", "text": "No"}]
    check_new(items, [{"id": "msg_other"}])
    with pytest.raises(InvalidRequest, match="Duplicate item found with id msg_theirs") as caught:
        check_new(items, [{"id": "msg_theirs"}])
    assert caught.value.param == "input.2.id"
    (plain,) = from_wire_input("Hi")
    assert (plain["role"], plain["content"]) == ("user", [QUESTION])
    assert from_wire_input(None) == []


# ---- the object and its events

TOKEN = TokenLogprob("Hé", "Hé".encode(), -0.5, (("Hé", "Hé".encode(), -0.5), ("<e>", b"", -2.0)))


def maker(**fields: Any) -> ResponseMaker:
    return ResponseMaker(
        request(**fields),
        response_id="resp_1",
        message_id="msg_1",
        created_at=17,
        fingerprint="fp_1",
    )


def said(cut_off: bool = False) -> Heard:
    made = Heard(None)
    made.take(Delta("Hé", 3, "length" if cut_off else "stop", (TOKEN,)))
    return made


def ended(made: ResponseMaker, *, cut_off: bool = False) -> Any:
    return made.ended(
        said(cut_off), prompt_tokens=4, cached_tokens=2, completion_tokens=3, ended_at=19
    )


def test_a_response_is_written_as_openai_writes_it() -> None:
    written = ended(maker(instructions="Rule", metadata={"a": "b"}, user="u")).model_dump()
    assert written["output"][0].pop("content") == [
        {
            "type": "output_text",
            "text": "Hé",
            "annotations": [],
            "logprobs": [
                {
                    "token": "Hé",
                    "bytes": [72, 195, 169],
                    "logprob": -0.5,
                    "top_logprobs": [
                        {"token": "Hé", "bytes": [72, 195, 169], "logprob": -0.5},
                        {"token": "<e>", "bytes": [], "logprob": -2.0},
                    ],
                }
            ],
        }
    ]
    assert written == {
        "id": "resp_1",
        "object": "response",
        "created_at": 17,
        "status": "completed",
        "background": False,
        "completed_at": 19,
        "error": None,
        "incomplete_details": None,
        "instructions": "Rule",
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": "m",
        "output": [{"id": "msg_1", "type": "message", "status": "completed", "role": "assistant"}],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "system_fingerprint": "fp_1",
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 7,
        },
        "user": "u",
        "metadata": {"a": "b"},
    }


def test_an_answer_that_was_cut_off_is_incomplete() -> None:
    response = ended(maker(max_output_tokens=16, store=False), cut_off=True)
    assert (response.status, response.completed_at, response.store) == ("incomplete", None, False)
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"


def test_the_sdk_takes_the_object_in_every_state() -> None:
    made = maker(tool_choice="none", temperature=0, metadata={"a": "b"})
    for response in (made.begun(), ended(made), ended(made, cut_off=True), made.failed("Why")):
        parsed = Response.model_validate(response.model_dump(mode="json"), strict=True)
        assert parsed.status == response.status
        assert (parsed.tool_choice, parsed.temperature) == ("none", 0)
    assert parsed.error is not None
    assert (parsed.error.code, parsed.error.message) == ("server_error", "Why")


def test_a_stored_response_is_given_as_it_was_answered() -> None:
    response = ended(maker())
    stored = StoredResponse("resp_1", None, "m", (), response.model_dump(mode="json"), 17, 99)
    assert to_wire_response(stored) == response
    assert dataclasses.replace(stored).items[0]["role"] == "assistant"


@pytest.mark.parametrize("cut_off", [False, True])
def test_the_events_of_a_stream_are_numbered_and_are_what_the_sdk_knows(cut_off: bool) -> None:
    made = maker()
    events = EventMaker(made, said())
    response = ended(made, cut_off=cut_off)
    written = [
        *events.opening(made.begun(), may_call=False),
        *events.pieces([Said("H")], []),
        *events.pieces([Said("é")], [TOKEN]),
        *events.closing(response),
        events.failed(made.failed("Why")),
    ]
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    parsed = [adapter.validate_python(event.model_dump(mode="json")) for event in written]
    assert [event.sequence_number for event in parsed] == list(range(11))
    assert [event.type for event in parsed] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete" if cut_off else "response.completed",
        "response.failed",
    ]
    assert parsed[2].item.content == []
    assert parsed[3].part.text == ""
    assert [event.delta for event in parsed[4:6]] == ["H", "é"]
    assert [len(event.logprobs) for event in parsed[4:7]] == [0, 1, 1]
    assert parsed[5].logprobs[0].top_logprobs[1].token == "<e>"
    assert parsed[6].text == parsed[7].part.text == parsed[8].item.content[0].text == "Hé"
    assert {event.item_id for event in parsed[3:8]} == {"msg_1"}
    assert parsed[9].response.output[0].id == parsed[8].item.id == "msg_1"
