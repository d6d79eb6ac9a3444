"""Chat completions: what is refused, and how answers are written."""

from typing import Any

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import Delta
from tunery.protocol.chat import CreateChatCompletionRequest
from tunery.wire.chat import (
    ChunkMaker,
    from_wire_messages,
    from_wire_stop,
    refuse_unsupported,
    to_wire_completion,
    to_wire_usage,
)

# Each field that is not there yet: values that ask for nothing, and values that ask for something.
FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "audio": ([], [{"voice": "alloy", "format": "wav"}]),
    "frequency_penalty": ([0, 0.0, -0.0], [0.5, -1, True, False, "0"]),
    "function_call": (["none"], ["auto", {"name": "f"}]),
    "functions": ([[]], [[{"name": "f"}], {}]),
    "logit_bias": ([{}], [{"50256": -100}, []]),
    "logprobs": ([False], [True, 0, 0.0, "false"]),
    "metadata": ([], [{"a": "b"}]),
    "modalities": ([["text"]], [["text", "audio"], ["audio"], [], "text"]),
    "moderation": ([], [{}]),
    "n": ([1], [2, 0, True, 1.0, "1"]),
    "parallel_tool_calls": ([], [True]),
    "prediction": ([], [{"type": "content", "content": "x"}]),
    "presence_penalty": ([0, 0.0], [2, 0.1, False]),
    "prompt_cache_key": ([], ["key"]),
    "prompt_cache_options": ([], [{}]),
    "prompt_cache_retention": ([], ["24h"]),
    "reasoning_effort": ([], ["low"]),
    "response_format": ([{"type": "text"}], [{"type": "json_object"}, {"type": "text", "x": 1}]),
    "service_tier": (["auto", "default"], ["flex", "priority"]),
    "store": ([False], [True, 0, 0.0]),
    "tool_choice": (["none"], ["auto", "required"]),
    "tools": ([[]], [[{"type": "function", "function": {"name": "f"}}]]),
    "top_logprobs": ([0], [5, False]),
    "verbosity": ([], ["low"]),
    "web_search_options": ([], [{}]),
}


def request(**fields: Any) -> CreateChatCompletionRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
    return CreateChatCompletionRequest.model_validate(body)


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        refuse_unsupported(request(**fields))
    return caught.value


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (neutral, _) in FIELDS.items() for value in [None, *neutral]],
)
def test_a_value_that_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    refuse_unsupported(request(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, asks) in FIELDS.items() for value in asks]
)
def test_a_value_that_asks_for_something_is_refused_by_name(name: str, value: Any) -> None:
    error = refusal(**{name: value})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert f"'{name}'" in error.message


def test_every_field_that_is_not_honoured_is_in_the_table_above() -> None:
    honoured = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p"}
    honoured |= {"stop", "seed", "stream", "stream_options", "user", "safety_identifier"}
    assert set(CreateChatCompletionRequest.model_fields) == honoured | set(FIELDS)


def test_what_is_honoured_is_not_refused() -> None:
    refuse_unsupported(
        request(
            max_tokens=5,
            temperature=0.5,
            top_p=1,
            stop=["a"],
            seed=1,
            stream=True,
            stream_options={"include_usage": True, "include_obfuscation": False},
            user="u",
        )
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {}, "stream": False}, "stream_options"),
        (
            {"stream_options": {"include_obfuscation": True}, "stream": True},
            "stream_options.include_obfuscation",
        ),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


@pytest.mark.parametrize(
    ("field", "empty", "asks"),
    [
        ("name", None, "Ann"),
        ("refusal", None, "No."),
        ("annotations", [], [{"type": "url_citation"}]),
        ("audio", None, {"id": "a"}),
        ("function_call", None, {"name": "f"}),
        ("tool_calls", [], [{"id": "call_1"}]),
        ("tool_call_id", None, "call_1"),
    ],
)
def test_an_answer_can_be_sent_back_and_what_it_cannot_say_is_refused_by_name(
    field: str, empty: Any, asks: Any
) -> None:
    question = {"role": "user", "content": "Hi"}
    answer = {"role": "assistant", "content": "Hello"}
    sent = request(messages=[question, answer | {field: empty}])
    refuse_unsupported(sent)
    assert from_wire_messages(sent.messages) == [question, answer]
    error = refusal(messages=[question, answer | {field: asks}])
    assert (error.param, error.code) == (f"messages.1.{field}", "unsupported_parameter")


def test_messages_and_stops_are_given_on_as_plain_values() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
    assert from_wire_messages(request(messages=messages).messages) == messages
    assert from_wire_stop(None) == from_wire_stop([]) == ()
    assert from_wire_stop("a") == ("a",)
    assert from_wire_stop(["a", "b"]) == ("a", "b")


def test_a_completion_is_written_as_openai_writes_it() -> None:
    written = to_wire_completion(
        completion_id="chatcmpl-1",
        created=17,
        model="ft:m",
        fingerprint="fp_1",
        text="Hello",
        last=Delta("", 3, "length"),
        prompt_tokens=4,
    ).model_dump()
    assert written["usage"] | {"prompt_tokens": 4, "completion_tokens": 3} == written["usage"]
    assert written["usage"]["total_tokens"] == 7
    assert {key: value for key, value in written.items() if key not in ("usage",)} == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "ft:m",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
    }


def test_a_streams_chunks_share_their_frame_and_carry_one_thing_each() -> None:
    maker = ChunkMaker(completion_id="chatcmpl-1", created=17, model="m", fingerprint="fp_1")
    usage = to_wire_usage(4, 3)
    chunks = [maker.first(), maker.text("Hel"), maker.last("stop"), maker.usage(usage)]
    frames = {(c.id, c.object, c.created, c.model, c.system_fingerprint) for c in chunks}
    assert frames == {("chatcmpl-1", "chat.completion.chunk", 17, "m", "fp_1")}
    assert [
        [(c.delta.role, c.delta.content, c.finish_reason) for c in chunk.choices]
        for chunk in chunks
    ] == [[("assistant", "", None)], [(None, "Hel", None)], [(None, None, "stop")], []]
    assert [chunk.usage for chunk in chunks] == [None, None, None, usage]
