"""Recorded prompts in every shape that they come in."""

import json
from typing import Any

import pytest

from tunery.datasets.recorded import RecordedPrompt, of_stored, read_prompts, record_line
from tunery.domain.errors import InvalidRequest

ASKED = [{"role": "system", "content": "Short."}, {"role": "user", "content": "Hi"}]
ANSWER = {"role": "assistant", "content": "Ho"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def prompt_of(value: Any) -> RecordedPrompt:
    (prompt,) = read_prompts([json.dumps(value).encode()])
    return prompt


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [*ASKED, ANSWER]},
        {"messages": [*ASKED, {**ANSWER, "weight": 1}]},
        {"messages": ASKED, "answer": "Ho"},
        {"body": {"messages": ASKED}, "answer": ANSWER},
        {"request": {"messages": ASKED, "model": "x", "stream": True, "n": 2, "store": True},
         "response": {"choices": [{"message": ANSWER}]}},
        {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
         "body": {"messages": ASKED},
         "response": {"status_code": 200, "body": {"choices": [{"message": ANSWER}]}}},
        {"input": {"messages": ASKED}, "preferred_output": [ANSWER],
         "non_preferred_output": [{"role": "assistant", "content": "Go away"}]},
    ],
)  # fmt: skip
def test_every_shape_is_a_prompt_and_its_answer(value: Any) -> None:
    assert prompt_of(value) == RecordedPrompt(1, {"temperature": 0, "messages": ASKED}, "Ho")


def test_a_body_alone_has_no_answer_and_keeps_how_it_samples() -> None:
    body = {"messages": ASKED, "temperature": 0.7, "max_tokens": 9, "tools": TOOLS, "seed": None}
    wanted = {"messages": ASKED, "temperature": 0.7, "max_tokens": 9, "tools": TOOLS}
    assert prompt_of(body) == RecordedPrompt(1, wanted, None)


def test_calls_before_the_answer_stay_as_they_were() -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    result = {"role": "tool", "tool_call_id": "call_1", "content": "7"}
    turns = [*ASKED, {"role": "assistant", "tool_calls": calls, "weight": 0}, result]
    asked = prompt_of({"messages": [*turns, ANSWER], "tools": TOOLS}).body["messages"]
    assert asked == [*ASKED, {"role": "assistant", "content": None, "tool_calls": calls}, result]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"[]", "needed a JSON dictionary, got a list"),
        (b"{", "not JSON"),
        (b"{}", "no list of messages"),
        (b'{"messages": []}', "no list of messages"),
        (b'{"messages": ["hi"]}', "no list of messages"),
        (b'{"body": {}}', "no list of messages"),
        (b'{"body": {"messages": [{"role": "user"}]}, "response": {}}', "no list of messages"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(line: bytes, told: str) -> None:
    good = json.dumps({"messages": ASKED}).encode()
    with pytest.raises(InvalidRequest, match=f"Line 2 is no prompt: .*{told}"):
        list(read_prompts([good + b"\n" + line]))


def test_a_stored_completion_is_a_prompt_with_what_it_was_sampled_with() -> None:
    completion = {
        "id": "chatcmpl-1",
        "model": "ft:x",
        "temperature": 0.2,
        "top_p": None,
        "tools": TOOLS,
        "usage": {},
        "choices": [{"message": {**ANSWER, "refusal": None}}],
    }
    messages = [{"id": f"chatcmpl-1-{n}", "name": None, **one} for n, one in enumerate(ASKED)]
    wanted = {"temperature": 0.2, "tools": TOOLS, "messages": ASKED}
    assert of_stored(3, completion, messages) == RecordedPrompt(3, wanted, "Ho")


def test_what_is_recorded_is_read_again_as_it_was() -> None:
    prompt = prompt_of({"messages": ASKED, "temperature": 0.5, "tools": TOOLS})
    (again,) = read_prompts([record_line(prompt, "Ho")])
    assert again == RecordedPrompt(1, prompt.body, "Ho")
