"""Chat completions: what is refused, and how answers are written."""

from typing import Any

import pytest

from tunery.datasets.heard import Heard
from tunery.datasets.tool_calls import Said
from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import Delta, FinishReason, TokenLogprob
from tunery.protocol.chat import CreateChatCompletionRequest
from tunery.wire.chat import (
    ChunkMaker,
    TextChunk,
    check_request,
    to_wire_choice,
    to_wire_completion,
    to_wire_usage,
)
from tunery.wire.requests import from_wire_value

# Each field that cannot be honoured: values that ask for nothing, and that ask for something.
FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "audio": ([], [{"voice": "alloy", "format": "wav"}]),
    "modalities": ([["text"]], [["text", "audio"], ["audio"]]),
    "moderation": ([], [{"model": "omni-moderation-latest"}]),
    "prediction": ([], [{"type": "content", "content": "x"}]),
    "prompt_cache_options": ([], [{}, {"mode": "implicit"}]),
    "prompt_cache_retention": ([], ["24h"]),
    "reasoning_effort": ([], ["low", "none"]),
    "service_tier": (["auto", "default"], ["flex", "priority"]),
    "verbosity": (["medium"], ["low"]),
    "web_search_options": ([], [{}]),
}
HONOURED = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n"}
HONOURED |= {"stop", "seed", "stream", "stream_options", "user", "safety_identifier", "store"}
HONOURED |= {"metadata", "logprobs", "top_logprobs", "logit_bias", "presence_penalty"}
HONOURED |= {"frequency_penalty", "tools", "tool_choice", "parallel_tool_calls", "functions"}
HONOURED |= {"function_call", "prompt_cache_key", "response_format"}

# Values of the wrong shape, and the field that the error names.
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"frequency_penalty": True}, "frequency_penalty"),
    ({"frequency_penalty": 2.1}, "frequency_penalty"),
    ({"presence_penalty": "0"}, "presence_penalty"),
    ({"logit_bias": []}, "logit_bias"),
    ({"logit_bias": {"50256": -101}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logprobs": 0}, "logprobs"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"n": 0}, "n"),
    ({"n": 1.0}, "n"),
    ({"n": 10**9}, "n"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"modalities": []}, "modalities"),
    ({"modalities": ["smell"]}, "modalities.0"),
    ({"moderation": {}}, "moderation.model"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tool_choice": "maybe"}, "tool_choice"),
    ({"functions": [{}]}, "functions.0.name"),
    ({"service_tier": "gold"}, "service_tier"),
    ({"reasoning_effort": "lots"}, "reasoning_effort"),
    ({"prediction": {"type": "content"}}, "prediction.content"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"metadata": {"k": 1}}, "metadata.k"),
    ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
    ({"nonsense": 1}, "nonsense"),
]


def request(**fields: Any) -> CreateChatCompletionRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
    return CreateChatCompletionRequest.model_validate(body)


def heard(text: str, reason: FinishReason, *told: TokenLogprob) -> Heard:
    made = Heard(None)
    made.take(Delta(text, 1, reason, told))
    return made


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_request(request(**fields))
    return caught.value


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
    error = refusal(**{name: value})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert f"'{name}'" in error.message


def test_every_field_is_honoured_or_in_the_table_above() -> None:
    assert set(CreateChatCompletionRequest.model_fields) == HONOURED | set(FIELDS)
    assert not HONOURED & set(FIELDS)


@pytest.mark.parametrize(("fields", "param"), MALFORMED)
def test_a_value_of_the_wrong_shape_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
    with pytest.raises(InvalidRequest) as caught:
        from_wire_value(body, CreateChatCompletionRequest)
    assert caught.value.param == param
    assert param in caught.value.message


def test_what_is_honoured_is_not_refused() -> None:
    check_request(
        request(
            max_tokens=5,
            temperature=0.5,
            top_p=1,
            stop=["a"],
            seed=1,
            stream=True,
            stream_options={"include_usage": True, "include_obfuscation": False},
            user="u",
            n=6,
            logprobs=True,
            top_logprobs=20,
            logit_bias={"5": 100, "6": -0.5},
            presence_penalty=2,
            frequency_penalty=-2,
            store=True,
            metadata={"a": "b"},
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
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "n": 129 // 2, "top_logprobs": 2}, "top_logprobs"),
        ({"metadata": {"a": "b"}}, "metadata"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, Any], param: str) -> None:
    assert refusal(**fields).param == param


def test_a_completion_is_written_as_openai_writes_it() -> None:
    written = to_wire_completion(
        completion_id="chatcmpl-1",
        created=17,
        model="ft:m",
        fingerprint="fp_1",
        choices=[to_wire_choice(0, heard("Hello", "length"), told=False, deprecated=False)],
        usage=to_wire_usage(4, 3, 2),
        metadata=None,
    ).model_dump()
    assert written["usage"] | {"prompt_tokens": 4, "completion_tokens": 3} == written["usage"]
    assert written["usage"]["total_tokens"] == 7
    assert written["usage"]["prompt_tokens_details"]["cached_tokens"] == 2
    assert {key: value for key, value in written.items() if key not in ("usage",)} == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "ft:m",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "metadata": None,
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
    usage = to_wire_usage(4, 3, 0)
    chunks = [
        maker.first(0),
        *maker.pieces(0, Heard(None), [Said("Hel")], []),
        maker.last(0, "stop"),
        maker.usage(usage),
    ]
    frames = {(c.id, c.object, c.created, c.model, c.system_fingerprint) for c in chunks}
    assert frames == {("chatcmpl-1", "chat.completion.chunk", 17, "m", "fp_1")}
    assert [
        [(c.delta.role, c.delta.content, c.finish_reason) for c in chunk.choices]
        for chunk in chunks
    ] == [[("assistant", "", None)], [(None, "Hel", None)], [(None, None, "stop")], []]
    assert [chunk.usage for chunk in chunks] == [None, None, None, usage]


def test_a_chunk_of_text_alone_is_the_chunk_that_a_piece_of_text_makes() -> None:
    maker = ChunkMaker(completion_id="chatcmpl-1", created=17, model="m", fingerprint="fp_1")
    (wanted,) = maker.pieces(1, Heard(None), [Said("Hel")], [])
    assert TextChunk(maker, 1, "Hel").whole() == wanted


def test_log_probabilities_are_written_with_their_bytes_and_a_special_token_has_none() -> None:
    told = TokenLogprob("é", "é".encode(), -0.5, (("é", "é".encode(), -0.5), ("<e>", b"", -2.0)))
    said = heard("é", "stop", told)
    written = to_wire_choice(1, said, told=True, deprecated=False).model_dump()
    assert written["logprobs"] == {
        "content": [
            {
                "token": "é",
                "bytes": [195, 169],
                "logprob": -0.5,
                "top_logprobs": [
                    {"token": "é", "bytes": [195, 169], "logprob": -0.5},
                    {"token": "<e>", "bytes": None, "logprob": -2.0},
                ],
            }
        ],
        "refusal": None,
    }
    assert written["index"] == 1
