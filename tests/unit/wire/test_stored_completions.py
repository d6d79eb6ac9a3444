"""Stored completions: what comes back beside the answer."""

from typing import Any

import pytest

from tunery.domain.stored_completions import StoredCompletion
from tunery.protocol.chat_completion import AssistantMessage, ChatCompletion, Choice
from tunery.protocol.usage import CompletionUsage
from tunery.wire.stored_completions import to_wire_stored_completion, to_wire_stored_message

ANSWER = ChatCompletion(
    id="chatcmpl-1",
    created=17,
    model="m",
    choices=[Choice(message=AssistantMessage(content="Hello"), finish_reason="stop")],
    usage=CompletionUsage(prompt_tokens=4, completion_tokens=3, total_tokens=7),
    metadata={"old": "1"},
    system_fingerprint="fp_1",
)


def stored(request: dict[str, Any], metadata: dict[str, str] | None) -> StoredCompletion:
    response = ANSWER.model_dump(mode="json")
    return StoredCompletion("chatcmpl-1", "m", metadata, "req_1", request, response, 17)


def test_what_was_asked_comes_back_with_the_answer_and_the_newest_metadata() -> None:
    asked = {
        "messages": [],
        "temperature": 0.5,
        "top_p": 0,
        "presence_penalty": 2,
        "frequency_penalty": -2,
        "seed": 0,
        "user": "u",
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "none",
    }
    written = to_wire_stored_completion(stored(asked, {"new": "2"})).model_dump()
    answer = ANSWER.model_dump() | {"metadata": {"new": "2"}}
    assert {name: written[name] for name in answer} == answer
    assert {name: written[name] for name in set(written) - set(answer)} == {
        "request_id": "req_1",
        "input_user": "u",
        **{name: value for name, value in asked.items() if name not in ("messages", "user")},
    }


@pytest.mark.parametrize("asked", [{}, {"temperature": None, "top_p": None, "seed": None}])
def test_what_was_left_open_has_openais_default(asked: dict[str, Any]) -> None:
    written = to_wire_stored_completion(stored(asked, None))
    assert (written.temperature, written.top_p) == (1, 1)
    assert (written.presence_penalty, written.frequency_penalty) == (0, 0)
    assert (written.seed, written.input_user, written.metadata) == (None, None, {})


def test_a_message_in_parts_has_them_beside_its_content() -> None:
    parts = [{"type": "text", "text": "a"}]
    assert to_wire_stored_message("c-0", {"role": "user", "content": parts}).model_dump() == {
        "id": "c-0",
        "role": "user",
        "content": None,
        "content_parts": parts,
        "name": None,
        "refusal": None,
    }
    answered = {"role": "tool", "content": "5", "tool_call_id": "call_1"}
    assert to_wire_stored_message("c-2", answered).model_dump()["tool_call_id"] == "call_1"
    plain = to_wire_stored_message("c-1", {"role": "user", "content": "a"})
    assert (plain.content, plain.content_parts) == ("a", None)
