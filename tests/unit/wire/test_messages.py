"""Messages: what each role may carry, and what cannot be read yet."""

from typing import Any

import pytest
from pydantic import ValidationError

from tunery.domain.errors import InvalidRequest
from tunery.protocol.messages import ChatMessage
from tunery.wire.messages import check_messages, from_wire_messages

HI = {"role": "user", "content": "Hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}


REFUSAL = {"type": "refusal", "refusal": "No."}
CUSTOM = {"id": "call_1", "type": "custom", "custom": {"name": "f", "input": "x"}}
CALLED = {"name": "f", "arguments": "{}"}
RESULT = {"role": "tool", "content": "x", "tool_call_id": "call_1"}
OLD_RESULT = {"role": "function", "content": "x", "name": "f"}


def messages(*values: dict[str, Any]) -> list[ChatMessage]:
    return [ChatMessage.model_validate(value) for value in values]


def refusal(*values: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_messages(messages(*values))
    return caught.value


@pytest.mark.parametrize(
    ("field", "empty", "asks"),
    [
        ("name", None, "Ann"),
        ("annotations", [], [{"type": "url_citation"}]),
        ("audio", None, {"id": "a"}),
    ],
)
def test_an_answer_can_be_sent_back_and_what_it_cannot_say_is_refused_by_name(
    field: str, empty: Any, asks: Any
) -> None:
    answer = {"role": "assistant", "content": "Hello"}
    sent = messages(HI, answer | {field: empty})
    check_messages(sent)
    assert from_wire_messages(sent) == [HI, answer]
    error = refusal(HI, answer | {field: asks})
    assert (error.param, error.code) == (f"messages.1.{field}", "unsupported_parameter")


def test_roles_and_parts_of_text_are_given_on_as_they_are() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    sent: list[dict[str, Any]] = [
        {"role": "developer", "content": "x"},
        {"role": "user", "content": parts},
    ]
    check_messages(messages(*sent))
    assert from_wire_messages(messages(*sent)) == sent


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [IMAGE]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [REFUSAL]}, "messages.0.content.0.type"),
        ({"role": "assistant", "tool_calls": [CUSTOM]}, "messages.0.tool_calls.0.type"),
    ],
)
def test_what_cannot_be_read_yet_is_refused_by_name(message: dict[str, Any], param: str) -> None:
    error = refusal(message)
    assert (error.param, error.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "user"}, "messages.0.content", "invalid_value"),
        ({"role": "assistant", "content": None}, "messages.0.content", "invalid_value"),
        (HI | {"tool_calls": [CALL]}, "messages.0.tool_calls", "invalid_value"),
        (HI | {"tool_call_id": "c"}, "messages.0.tool_call_id", "invalid_value"),
        (RESULT, "messages.0.tool_call_id", "invalid_value"),
        (OLD_RESULT, "messages.0.name", "invalid_value"),
        ({"role": "assistant", "tool_calls": [CALL]}, "messages.0.tool_calls", "invalid_value"),
        ({"role": "tool", "content": "x"}, "messages.0.tool_call_id", "missing_required_parameter"),
        ({"role": "function", "content": "x"}, "messages.0.name", "missing_required_parameter"),
    ],
)
def test_a_message_that_does_not_fit_its_role_is_refused(
    message: dict[str, Any], param: str, code: str
) -> None:
    error = refusal(message)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize(
    "conversation",
    [
        [HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT],
        [HI, {"role": "assistant", "content": "So:", "function_call": CALLED}, OLD_RESULT],
        [HI | {"name": "ann"}, {"role": "assistant", "content": None, "refusal": "No."}, HI],
        [HI, {"role": "assistant", "content": [REFUSAL]}, HI],
    ],
)
def test_calls_results_names_and_refusals_are_given_on_as_they_are(
    conversation: list[dict[str, Any]],
) -> None:
    sent = messages(*conversation)
    check_messages(sent)
    assert from_wire_messages(sent) == conversation


@pytest.mark.parametrize("name", ["", "a b", "a<b", "x" * 65])
def test_a_name_is_a_word(name: str) -> None:
    with pytest.raises(ValidationError):
        messages(HI | {"name": name})


def test_an_answer_that_the_sdk_has_parsed_can_be_sent_back() -> None:
    answer = {"role": "assistant", "content": '{"a": 1}'}
    for parsed in (None, {"a": 1}):
        sent = messages(HI, answer | {"parsed": parsed, "annotations": [], "tool_calls": None})
        check_messages(sent)
        assert from_wire_messages(sent) == [HI, answer]
    assert refusal(HI | {"parsed": {}}).param == "messages.0.parsed"
