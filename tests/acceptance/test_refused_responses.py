"""What /v1/responses refuses, by name, and what it takes because it asks for nothing."""

from typing import Any

import httpx2
import pytest
from openai import OpenAI

from support.server import BASE, Server

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


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "missing_required_parameter"),
        ({"input": 5}, "input", "invalid_value"),
        ({"input": ["x"]}, "input.0", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input.0.content", "missing_required_parameter"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role", "invalid_value"),
        ({"input": [{"type": "nothing"}]}, "input.0.type", "invalid_value"),
        ({"tools": [{"type": "nothing"}]}, "tools.0.type", "invalid_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
            "input.0.content.0.type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
            "input.0.content.0.type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input.0.content.0.type",
            "unsupported_parameter",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
            "input",
            "invalid_value",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f"}]},
            "input.0.arguments",
            "missing_required_parameter",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]},
            "input",
            "invalid_value",
        ),
        (
            {"input": [{"type": "item_reference", "id": "msg_1"}]},
            "input.0.type",
            "unsupported_parameter",
        ),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"max_output_tokens": 15}, "max_output_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"include": ["reasoning.encrypted_content"]}, "include", "unsupported_parameter"),
        ({"background": True}, "background", "unsupported_parameter"),
        ({"text": {"format": {"type": "json_object"}}}, "input", None),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "invalid_value"),
        (
            {"tools": [{"type": "web_search"}]},
            "tools.0.type",
            "unsupported_parameter",
        ),
        ({"tools": [{"type": "function"}]}, "tools.0.name", "missing_required_parameter"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort", "unsupported_parameter"),
        ({"stream_options": {}}, "stream_options", None),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    http: httpx2.Client, fields: dict[str, Any], param: str, code: str | None
) -> None:
    body = {**GREEDY, "input": "hi", **fields}
    sent = {key: value for key, value in body.items() if value is not None}
    error = error_of(http.post(PATH, json=sent), 400)
    assert (error["param"], error["code"]) == (param, code)


def test_values_that_ask_for_nothing_are_accepted(client: OpenAI) -> None:
    response = client.responses.create(
        **GREEDY,
        input="hi",
        text={"format": {"type": "text"}, "verbosity": "medium"},
        tools=[],
        tool_choice="none",
        parallel_tool_calls=True,
        reasoning={"effort": None, "summary": None},
        include=[],
        background=False,
        service_tier="auto",
        truncation="disabled",
        top_logprobs=0,
        stream=False,
    )
    assert response.tool_choice == "none"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("include[]=message.output_text.logprobs", "include"),
        ("include=x", "include"),
        ("stream=true", "stream"),
        ("starting_after=0", "starting_after"),
        ("include_obfuscation=true", "include_obfuscation"),
        ("something=1", "something"),
    ],
)
def test_a_query_that_cannot_be_honoured_is_refused(
    client: OpenAI, http: httpx2.Client, query: str, param: str
) -> None:
    response = client.responses.create(**GREEDY, input="hi")
    assert error_of(http.get(f"{PATH}/{response.id}?{query}"), 400)["param"] == param
    assert http.get(f"{PATH}/{response.id}?stream=false").status_code == 200
