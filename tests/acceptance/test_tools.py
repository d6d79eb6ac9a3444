"""Tool calls through the official SDK: by a model that was tuned to call, and by its base."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from support.calling import ARGUMENTS, QUESTION, TOOLS, calling_lines, result
from support.server import BASE, method, poll, tuned_model, upload


@pytest.fixture(scope="module")
def caller(client: OpenAI) -> str:
    """Return a model that learned to call `look_up`, and to say what it gave."""
    training = upload(client, calling_lines(12), "calls.jsonl")
    assert training.status == "processed", training.status_details
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training.id,
        seed=1,
        method=method(n_epochs=40, batch_size=4, learning_rate_multiplier=1.5),
    )
    return tuned_model(client, job.id, 300)


def chat(client: OpenAI, model: str, *messages: Any, **options: Any) -> Any:
    given = {"model": model, "messages": [QUESTION, *messages], "temperature": 0, "tools": TOOLS}
    return client.chat.completions.create(**{**given, "max_tokens": 200, **options})


def test_a_tuned_model_calls_and_answers_with_what_the_call_gave(
    client: OpenAI, caller: str
) -> None:
    asked = chat(client, caller)
    (choice,) = asked.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, call.function.arguments) == (
        "function",
        "look_up",
        ARGUMENTS,
    )
    assert call.id.startswith("call_")
    answered = chat(client, caller, choice.message, result(call.id))
    assert answered.choices[0].finish_reason == "stop"
    assert answered.choices[0].message.content == "it is 7"
    assert answered.usage.prompt_tokens > asked.usage.prompt_tokens + asked.usage.completion_tokens


def test_a_stream_tells_of_the_call_as_openai_does(client: OpenAI, caller: str) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(chat(client, caller, **options))
    whole = chat(client, caller)
    *chunks, last = chunks
    assert last.usage == whole.usage
    deltas = [chunk.choices[0].delta for chunk in chunks]
    first, opened, *rest = deltas
    assert (first.role, first.content, first.tool_calls) == ("assistant", None, None)
    (call,) = opened.tool_calls
    assert (call.index, call.type, call.id[:5]) == (0, "function", "call_")
    assert (call.function.name, call.function.arguments) == ("look_up", "")
    pieces = [delta.tool_calls[0] for delta in rest if delta.tool_calls]
    assert all(
        (one.id, one.type, one.function.name, one.index) == (None, None, None, 0) for one in pieces
    )
    assert "".join(one.function.arguments for one in pieces) == ARGUMENTS
    assert len(pieces) > 1
    assert all(not delta.content for delta in deltas)
    ends = [chunk.choices[0].finish_reason for chunk in chunks]
    assert ends == [None] * (len(chunks) - 1) + ["tool_calls"]


def test_the_sdks_stream_helper_puts_the_call_together(client: OpenAI, caller: str) -> None:
    question: Any = QUESTION
    with client.chat.completions.stream(
        model=caller, messages=[question], tools=TOOLS, temperature=0, max_tokens=200
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [(event.name, event.arguments) for event in done] == [("look_up", ARGUMENTS)]
    assert final.choices[0].message.tool_calls
    (call,) = final.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("look_up", ARGUMENTS)
    assert final.choices[0].message.content is None


def test_text_stays_text_where_no_call_is_needed(client: OpenAI, caller: str) -> None:
    hi = {"role": "user", "content": "hi"}
    said = chat(client, caller, messages=[hi]).choices[0]
    assert (said.message.content, said.message.tool_calls, said.finish_reason) == (
        "yes",
        None,
        "stop",
    )
    pieces = list(chat(client, caller, messages=[hi], stream=True))
    assert "".join(one.choices[0].delta.content or "" for one in pieces) == "yes"


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("required", "look_up"),
        ({"type": "function", "function": {"name": "note"}}, "note"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "note"}}],
                },
            },
            "note",
        ),
    ],
)
def test_a_call_that_has_to_be_follows_its_schema(
    client: OpenAI, caller: str, choice: Any, name: str
) -> None:
    made = chat(client, caller, tool_choice=choice, parallel_tool_calls=False).choices[0]
    assert (made.finish_reason, made.message.content) == ("tool_calls", None)
    (call,) = made.message.tool_calls
    assert call.function.name == name
    arguments = json.loads(call.function.arguments)
    if name == "look_up":
        assert arguments == {"key": "k1"}
    else:
        assert list(map(type, arguments.values())) == [int, bool]


@pytest.mark.parametrize("seed", range(4))
def test_a_model_that_never_learned_to_call_calls_rightly_where_it_has_to(
    client: OpenAI, seed: int
) -> None:
    made = chat(client, BASE, tool_choice="required", temperature=2, seed=seed, max_tokens=400)
    calls = made.choices[0].message.tool_calls
    cut = made.choices[0].finish_reason == "length"
    assert calls or cut
    for call in calls[: len(calls) - cut]:
        arguments = json.loads(call.function.arguments)
        if call.function.name == "look_up":
            assert arguments in ({"key": "k1"}, {"key": "k2"})
        else:
            assert call.function.name == "note"
            assert (type(arguments["n"]), type(arguments["done"])) == (int, bool)
            assert len(arguments) == 2


def test_a_function_that_is_named_is_called_once(client: OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    flat: Any = [{"type": "function", "name": "f", "parameters": None, "strict": False}]
    named = {"type": "function", "function": {"name": "f"}}
    # Of random weights: one in two would go on to another call, as a call that is free does.
    free = chat(client, BASE, tools=tools, tool_choice="required", temperature=2, n=8, seed=1)
    assert max(len(one.message.tool_calls or ()) for one in free.choices) > 1
    made = chat(client, BASE, tools=tools, tool_choice=named, temperature=2, n=8, seed=1)
    assert [len(one.message.tool_calls) for one in made.choices] == [1] * 8
    for _ in range(8):
        (call,) = respond(
            client, BASE, "a", tools=flat, tool_choice={"type": "function", "name": "f"},
            temperature=2, max_output_tokens=200,
        ).output  # fmt: skip
        assert (call.type, call.name, call.arguments) == ("function_call", "f", "{}")


def test_no_call_is_made_where_none_may_be(client: OpenAI, caller: str) -> None:
    made = chat(client, caller, tool_choice="none").choices[0]
    assert made.message.tool_calls is None
    assert "<tool_call>" not in made.message.content
    assert made.finish_reason in ("stop", "length")


def test_a_call_that_is_cut_off_says_so(client: OpenAI, caller: str) -> None:
    # A token a byte: the marks and the name are 58 of them, and then there are arguments.
    marks = len('<tool_call>\n{"name": "look_up", "arguments": ')
    made = chat(client, caller, max_tokens=marks + 5).choices[0]
    assert made.finish_reason == "length"
    assert made.message.tool_calls[0].function.arguments == ARGUMENTS[:5]
    early = chat(client, caller, max_tokens=marks - 5).choices[0]
    assert (early.finish_reason, early.message.content, early.message.tool_calls) == (
        "length",
        "",
        None,
    )


def test_of_a_mark_that_is_cut_off_nothing_is_shown(client: OpenAI) -> None:
    choice = chat(client, BASE, tool_choice="required", max_tokens=4).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
    assert not choice.message.content


def test_a_stop_string_within_arguments_cuts_the_call_off(client: OpenAI, caller: str) -> None:
    for stream in (False, True):
        made = chat(client, caller, stop=[ARGUMENTS[3:7]], stream=stream)
        if stream:
            (reason,) = {one.choices[0].finish_reason for one in made} - {None}
        else:
            reason = made.choices[0].finish_reason
            (call,) = made.choices[0].message.tool_calls
            assert call.function.arguments == ARGUMENTS[:3]
        assert reason == "stop"


def test_the_deprecated_form_is_answered_in_its_own(client: OpenAI, caller: str) -> None:
    functions = [tool["function"] for tool in TOOLS]
    asked = chat(client, caller, tools=openai.omit, functions=functions).choices[0]
    assert (asked.finish_reason, asked.message.tool_calls) == ("function_call", None)
    call = asked.message.function_call
    assert (call.name, call.arguments) == ("look_up", ARGUMENTS)
    gave = {"role": "function", "name": "look_up", "content": "7"}
    options = {"tools": openai.omit, "functions": functions}
    answered = chat(client, caller, asked.message, gave, **options).choices[0]
    assert answered.message.content == "it is 7"
    chunks = list(chat(client, caller, stream=True, **options))
    deltas = [one.choices[0].delta.function_call for one in chunks]
    told = [delta for delta in deltas if delta is not None]
    assert [one.name for one in told] == ["look_up"] + [None] * (len(told) - 1)
    assert "".join(one.arguments for one in told) == ARGUMENTS
    assert chunks[-1].choices[0].finish_reason == "function_call"


def test_log_probabilities_are_those_of_what_is_said(client: OpenAI, caller: str) -> None:
    hi = {"role": "user", "content": "hi"}
    said = chat(client, caller, messages=[hi], logprobs=True).choices[0]
    assert "".join(one.token for one in said.logprobs.content) == "yes"
    called = chat(client, caller, logprobs=True).choices[0]
    assert called.message.tool_calls
    assert called.logprobs.content == []


def test_a_stored_completion_keeps_its_tools_and_its_call(client: OpenAI, caller: str) -> None:
    made = chat(client, caller, store=True, tool_choice="auto")
    kept = client.chat.completions.retrieve(made.id)
    assert kept.choices == made.choices
    extra: Any = kept
    assert (extra.tools, extra.tool_choice) == (TOOLS, "auto")
    answered = chat(
        client, caller, made.choices[0].message, result(made.choices[0].message.tool_calls[0].id),
        store=True,
    )  # fmt: skip
    messages = client.chat.completions.messages.list(answered.id).data
    assert messages[1].tool_calls is not None
    assert messages[1].tool_calls[0].id == made.choices[0].message.tool_calls[0].id


FLAT: Any = [{"type": "function", "strict": False, **tool["function"]} for tool in TOOLS]


def respond(client: OpenAI, model: str, given: Any, **options: Any) -> Any:
    return client.responses.create(
        **{"model": model, "input": given, "temperature": 0, "tools": FLAT, **options}
    )


def test_a_response_calls_and_is_gone_on_from(client: OpenAI, caller: str) -> None:
    first = respond(client, caller, "find it")
    (call,) = first.output
    assert (call.type, call.name, call.arguments) == ("function_call", "look_up", ARGUMENTS)
    assert (call.status, call.call_id[:5], call.id[:3]) == ("completed", "call_", "fc_")
    assert first.tools[0].name == "look_up"
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "7"}
    second = respond(client, caller, [output], previous_response_id=first.id)
    assert second.output_text == "it is 7"
    by_hand = respond(client, caller, [QUESTION, call.model_dump(exclude_none=True), output])
    assert by_hand.output_text == "it is 7"
    assert by_hand.usage == second.usage
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]
    count = client.responses.input_tokens.count(
        model=caller, input=[output], tools=FLAT, previous_response_id=first.id
    )
    assert count.input_tokens == second.usage.input_tokens


def test_a_streamed_response_tells_of_its_call_in_events(client: OpenAI, caller: str) -> None:
    events = list(respond(client, caller, "find it", stream=True))
    kinds = [event.type for event in events]
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert [kind for kind in kinds if not kind.endswith(".delta")] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in deltas) == ARGUMENTS
    added, done = (event.item for event in events if event.type.startswith("response.output_item"))
    assert (added.arguments, done.arguments) == ("", ARGUMENTS)
    assert (
        (added.id, added.call_id) == (done.id, done.call_id) == (deltas[0].item_id, added.call_id)
    )
    assert events[-1].response.output == [done]
    hello = list(respond(client, caller, "hi", stream=True))
    assert "".join(event.delta for event in hello if event.type.endswith("text.delta")) == "yes"


def test_a_result_without_its_call_is_refused(client: OpenAI, caller: str) -> None:
    output = {"type": "function_call_output", "call_id": "call_x", "output": "7"}
    with pytest.raises(openai.BadRequestError, match="call_x") as caught:
        respond(client, caller, [output])
    assert caught.value.param == "input"
    with pytest.raises(openai.BadRequestError, match="call_a") as caught:
        chat(client, caller, result())
    assert caught.value.param == "messages.1.tool_call_id"
    first = respond(client, caller, "find it")
    with pytest.raises(openai.BadRequestError, match=first.output[0].call_id):
        respond(client, caller, "and?", previous_response_id=first.id)


def test_a_cache_key_is_a_hint(client: OpenAI, caller: str) -> None:
    hi = {"role": "user", "content": "hi"}
    plain, hinted = (
        chat(client, caller, messages=[hi], prompt_cache_key=key) for key in (openai.omit, "k")
    )
    assert hinted.choices == plain.choices
    assert respond(client, caller, "hi", prompt_cache_key="k").prompt_cache_key == "k"


def test_a_batch_takes_tools(client: OpenAI, caller: str) -> None:
    body = {"model": caller, "messages": [QUESTION], "tools": TOOLS, "temperature": 0}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("b.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    def ended() -> Any:
        found = client.batches.retrieve(batch.id)
        return found if found.status in ("completed", "failed") else None

    done = poll(ended, "the end of the batch")
    answer = json.loads(client.files.content(done.output_file_id).read())["response"]["body"]
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "look_up", "arguments": ARGUMENTS}


def test_a_strict_schema_that_cannot_be_followed_is_refused_by_name(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
    function = {"name": "f", "strict": True, "parameters": schema}
    advice = {**function, "strict": False}
    for form, param in (
        (lambda one: {"tools": [{"type": "function", "function": one}]}, "tools.0.function"),
        (lambda one: {"tools": openai.omit, "functions": [one]}, "functions.0"),
    ):
        with pytest.raises(openai.BadRequestError, match="schema for function 'f'") as caught:
            chat(client, BASE, **form(function))
        assert caught.value.param == f"{param}.parameters"
        assert "In context=('properties', 'a'), Pointer '/nowhere'" in caught.value.message
        assert chat(client, BASE, **form(advice), max_tokens=1).usage.completion_tokens == 1
