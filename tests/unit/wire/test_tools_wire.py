"""Tools in requests, nested and flat: what is refused, and what the model may call."""

from typing import Any

import pytest

from tunery.datasets.heard import Heard, Reading
from tunery.datasets.tools import PLAIN, Calling, Choice
from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import Delta
from tunery.protocol.chat import CreateChatCompletionRequest
from tunery.protocol.response_request import CreateResponseRequest
from tunery.wire.chat import ChunkMaker, check_request, to_wire_choice
from tunery.wire.requests import from_wire_value
from tunery.wire.response_events import EventMaker
from tunery.wire.response_items import from_wire_input, to_messages
from tunery.wire.response_tools import from_flat_calling
from tunery.wire.responses import ResponseMaker
from tunery.wire.responses import check_request as check_response
from tunery.wire.tools import from_wire_calling

PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
F = {"name": "f", "description": "d", "parameters": PARAMETERS, "strict": True}
G = {"name": "g"}
TOOLS = [{"type": "function", "function": one} for one in (F, G)]
FLAT = [{"type": "function", **one} for one in (F, G)]
CUSTOM = {"type": "custom", "custom": {"name": "c"}}
HI = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> CreateChatCompletionRequest:
    return from_wire_value({"model": "m", "messages": HI, **fields}, CreateChatCompletionRequest)


def response(**fields: Any) -> CreateResponseRequest:
    return from_wire_value({"model": "m", "input": "Hi", **fields}, CreateResponseRequest)


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def with_tool(tool: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool]}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def summary(calling: Calling | None) -> tuple[list[str], tuple[str, ...], Choice, bool] | None:
    if calling is None:
        return None
    names = [one.name for one in calling.functions]
    return names, calling.allowed, calling.choice, calling.several


BOTH = ["f", "g"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"tools": []}, None),
        ({"tools": [], "tool_choice": "none"}, None),
        ({"functions": [], "function_call": "none"}, None),
        ({"tools": TOOLS}, (BOTH, ("f", "g"), "auto", True)),
        ({"tools": TOOLS, "tool_choice": "auto"}, (BOTH, ("f", "g"), "auto", True)),
        ({"tools": TOOLS, "tool_choice": "none"}, (BOTH, ("f", "g"), "none", True)),
        (
            {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
            (BOTH, ("f", "g"), "required", False),
        ),
        ({"tools": TOOLS, "tool_choice": named("g")}, (BOTH, ("g",), "required", False)),
        ({"tools": TOOLS, "tool_choice": allowed("auto", "g")}, (BOTH, ("g",), "auto", True)),
        (
            {"tools": TOOLS, "tool_choice": allowed("required", "g", "f")},
            (BOTH, ("f", "g"), "required", True),
        ),
        ({"functions": [F, G]}, (BOTH, ("f", "g"), "auto", False)),
        ({"functions": [F, G], "function_call": "none"}, (BOTH, ("f", "g"), "none", False)),
        ({"functions": [F, G], "function_call": {"name": "g"}}, (BOTH, ("g",), "required", False)),
    ],
)
def test_what_a_chat_may_call(fields: dict[str, Any], expected: Any) -> None:
    request = chat(**fields)
    check_request(request)
    assert summary(from_wire_calling(request)) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}, None),
        ({"tools": FLAT}, (BOTH, ("f", "g"), "auto", True)),
        ({"tools": FLAT, "tool_choice": "required"}, (BOTH, ("f", "g"), "required", True)),
        (
            {"tools": FLAT, "tool_choice": {"type": "function", "name": "g"}},
            (BOTH, ("g",), "required", False),
        ),
        (
            {
                "tools": FLAT,
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "g"}],
                },
                "parallel_tool_calls": False,
            },
            (BOTH, ("g",), "auto", False),
        ),
    ],
)
def test_what_a_response_may_call(fields: dict[str, Any], expected: Any) -> None:
    request = response(**fields)
    check_response(request)
    assert summary(from_flat_calling(request)) == expected


def test_functions_are_taken_with_all_that_is_said_of_them() -> None:
    for calling, param in (
        (from_wire_calling(chat(tools=TOOLS)), "tools.0.function.parameters"),
        (from_wire_calling(chat(functions=[F])), "functions.0.parameters"),
        (from_flat_calling(response(tools=FLAT)), "tools.0.parameters"),
    ):
        assert calling is not None
        first = calling.functions[0]
        assert (first.name, first.description, first.parameters) == ("f", "d", PARAMETERS)
        assert (first.strict, first.param) == (True, param)
    flat = from_flat_calling(response(tools=FLAT))
    nested = from_wire_calling(chat(tools=TOOLS))
    assert flat is not None
    assert nested is not None
    assert (flat.functions[1].strict, nested.functions[1].strict) == (None, False)


DEEP: Any = {"type": "object"}
for _ in range(100):
    DEEP = {"type": "object", "x": DEEP}
WRONG_TYPE = {"name": "h", "parameters": {"type": "array"}}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [CUSTOM]}, "tools.0.type", "unsupported_parameter"),
        ({"tools": TOOLS, "functions": [F]}, "functions", "invalid_value"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools.1.function.name", "invalid_value"),
        ({"functions": [F, F]}, "functions.1.name", "invalid_value"),
        ({"functions": [WRONG_TYPE]}, "functions.0.parameters", "invalid_value"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "required", "tools": []}, "tool_choice", "invalid_value"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls", "invalid_value"),
        ({"function_call": "auto"}, "function_call", "invalid_value"),
        (
            {"tools": TOOLS, "tool_choice": named("h")},
            "tool_choice.function.name",
            "invalid_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
            "tool_choice.type",
            "unsupported_parameter",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", "h")},
            "tool_choice.allowed_tools.tools.0",
            "invalid_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": with_tool({**named("f"), "x": 1})},
            "tool_choice.allowed_tools.tools.0",
            "invalid_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": with_tool({"type": "function", "function": "f"})},
            "tool_choice.allowed_tools.tools.0",
            "invalid_value",
        ),
        (
            {"functions": [{"name": "f", "parameters": DEEP}]},
            "functions.0.parameters",
            "invalid_value",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto")},
            "tool_choice.allowed_tools.tools",
            "invalid_value",
        ),
        ({"functions": [F], "function_call": {"name": "h"}}, "function_call.name", "invalid_value"),
    ],
)
def test_a_chat_that_cannot_be_is_refused_by_name(
    fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_request(chat(**fields))
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "unsupported_parameter"),
        ({"tools": [FLAT[0] | {"async": True}]}, "tools.0.async", "unsupported_parameter"),
        (
            {"tools": [FLAT[0] | {"output_schema": {"a": 1}}]},
            "tools.0.output_schema",
            "unsupported_parameter",
        ),
        ({"tools": [FLAT[0], FLAT[0]]}, "tools.1.name", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        (
            {"tools": FLAT, "tool_choice": {"type": "function", "name": "h"}},
            "tool_choice.name",
            "invalid_value",
        ),
        (
            {
                "tools": FLAT,
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "f", "x": 1}],
                },
            },
            "tool_choice.tools.0",
            "invalid_value",
        ),
        (
            {"tools": FLAT, "tool_choice": {"type": "web_search_preview"}},
            "tool_choice.type",
            "unsupported_parameter",
        ),
    ],
)
def test_a_response_that_cannot_be_is_refused_by_name(
    fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_response(response(**fields))
    assert (caught.value.param, caught.value.code) == (param, code)


# ---- answers

ARGUMENTS = '{"a": 1}'
TEXT = "So:\n" + PLAIN.written([("f", ARGUMENTS), ("g", "{}")])


def heard(text: str = TEXT, reason: Any = "stop") -> Heard:
    made = Heard(Reading(PLAIN, ("f", "g")))
    made.take(Delta(text, 5, reason))
    return made


def test_calls_are_written_as_openai_writes_them() -> None:
    made = heard()
    written = to_wire_choice(0, made, told=False, deprecated=False).model_dump()
    assert written == {
        "index": 0,
        "finish_reason": "tool_calls",
        "logprobs": None,
        "message": {
            "role": "assistant",
            "content": "So:",
            "refusal": None,
            "annotations": [],
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for call, name, arguments in zip(
                    made.calls, ("f", "g"), (ARGUMENTS, "{}"), strict=True
                )
            ],
        },
    }
    alone = heard(PLAIN.written([("f", ARGUMENTS)]))
    old = to_wire_choice(0, alone, told=False, deprecated=True)
    assert old.finish_reason == "function_call"
    assert old.message.model_dump() == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": [],
        "function_call": {"name": "f", "arguments": ARGUMENTS},
    }
    cut = to_wire_choice(0, heard(TEXT[:-20], "length"), told=False, deprecated=False)
    assert cut.finish_reason == "length"


def test_each_chunk_of_a_call_has_what_is_new() -> None:
    made = Heard(Reading(PLAIN, ("f", "g")))
    maker = ChunkMaker(completion_id="c", created=1, model="m", fingerprint="fp")
    chunks = [maker.first(0, may_call=True)]
    for part in (TEXT[:30], TEXT[30:]):
        chunks += maker.pieces(0, made, *made.take(Delta(part, 1)))
    deltas = [chunk.model_dump()["choices"][0]["delta"] for chunk in chunks]
    assert deltas[:2] == [{"role": "assistant"}, {"content": "So:"}]
    calls = [delta["tool_calls"][0] for delta in deltas[2:]]
    assert calls == [
        {
            "index": 0,
            "id": made.calls[0].id,
            "type": "function",
            "function": {"name": "f", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": ARGUMENTS}},
        {
            "index": 1,
            "id": made.calls[1].id,
            "type": "function",
            "function": {"name": "g", "arguments": ""},
        },
        {"index": 1, "function": {"arguments": "{}"}},
    ]


def test_a_response_has_an_item_for_its_text_and_for_each_call() -> None:
    made = heard()
    maker = ResponseMaker(
        response(
            tools=FLAT, tool_choice="required", parallel_tool_calls=False, prompt_cache_key="k"
        ),
        response_id="resp_1",
        message_id="msg_1",
        created_at=1,
        fingerprint="fp_x",
    )
    whole = maker.ended(made, prompt_tokens=1, cached_tokens=0, completion_tokens=5, ended_at=2)
    written = whole.model_dump()
    message, first, second = written["output"]
    assert (message["id"], message["content"][0]["text"]) == ("msg_1", "So:")
    assert first == {
        "id": first["id"],
        "type": "function_call",
        "status": "completed",
        "call_id": made.calls[0].id,
        "name": "f",
        "arguments": ARGUMENTS,
    }
    assert (second["name"], second["arguments"], second["id"][:3]) == ("g", "{}", "fc_")
    assert (written["tool_choice"], written["parallel_tool_calls"]) == ("required", False)
    assert written["prompt_cache_key"] == "k"
    assert written["tools"] == [
        FLAT[0],
        {"type": "function", "name": "g", "description": None, "parameters": None, "strict": True},
    ]
    cut = maker.ended(
        heard(TEXT[:-15], "length"),
        prompt_tokens=1,
        cached_tokens=0,
        completion_tokens=5,
        ended_at=2,
    )
    assert [item.status for item in cut.output] == ["completed", "completed", "incomplete"]
    assert cut.status == "incomplete"


def test_the_events_of_each_item_stand_together() -> None:
    made = Heard(Reading(PLAIN, ("f", "g")))
    maker = ResponseMaker(
        response(tools=FLAT),
        response_id="resp_1",
        message_id="msg_1",
        created_at=1,
        fingerprint="fp_x",
    )
    events = EventMaker(maker, made)
    written = list(events.opening(maker.begun(), may_call=True))
    written += events.pieces(*made.take(Delta(TEXT, 5, "stop")))
    written += events.closing(
        maker.ended(made, prompt_tokens=1, cached_tokens=0, completion_tokens=5, ended_at=2)
    )
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done"]
    call += ["output_item.done"]
    message = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done"]
    message += ["content_part.done", "output_item.done"]
    expected = ["created", "in_progress", *message, *call, *call, "completed"]
    assert [event.type.removeprefix("response.") for event in written] == expected
    assert [event.sequence_number for event in written] == list(range(len(written)))
    places = [event.model_dump().get("output_index") for event in written]
    assert places == [None, None, *[0] * 6, *[1] * 4, *[2] * 4, None]


def test_items_of_calls_are_one_conversation_with_the_messages() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    given = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "So:"},
        {**call, "call_id": "a", "id": "fc_1"},
        {**call, "call_id": "b"},
        {"type": "function_call_output", "call_id": "b", "output": "2"},
        {
            "type": "function_call_output",
            "call_id": "a",
            "output": [{"type": "input_text", "text": "1"}],
        },
        {**call, "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
    ]
    request = response(input=given)
    check_response(request)
    items = from_wire_input(request.input)
    assert items[2]["id"] == "fc_1"
    assert [item["id"][:4] for item in items[3:6]] == ["fc_" + items[3]["id"][3], "fco_", "fco_"]
    messages = to_messages(items)
    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
    ]
    assert [one["id"] for one in messages[1]["tool_calls"]] == ["a", "b"]
    assert messages[3]["content"] == [{"type": "text", "text": "1"}]
    assert messages[4]["content"] is None
    for wrong in (items[:4], items[4:5], items[:3]):
        with pytest.raises(InvalidRequest) as caught:
            to_messages(wrong)
        assert caught.value.param == "input"
