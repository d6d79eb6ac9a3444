"""Preference lines as two chats."""

from typing import Any

import pytest

from tunery.datasets.checks import check_chat_line
from tunery.datasets.preferences import chats_of, is_preference

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Hello", "What?"))


@pytest.mark.parametrize("preferred", ["preferred_output", "preferred_completion"])
@pytest.mark.parametrize("other", ["non_preferred_output", "non_preferred_completion"])
def test_both_spellings_give_the_same_two_chats(preferred: str, other: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    shared = {"messages": [USER, BAD, USER], "tools": tools, "parallel_tool_calls": False}
    line = {other: [BAD], "input": shared, preferred: [GOOD]}
    chats = chats_of(line)
    for chat, answer in zip(chats, (GOOD, BAD), strict=True):
        assert chat == {
            "messages": [USER, BAD | {"weight": 0}, USER, answer],
            "tools": tools,
            "parallel_tool_calls": False,
        }
        assert check_chat_line(chat) is None
    assert shared["messages"] == [USER, BAD, USER]  # the line itself is left as it was


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ({"input": {}}, True),
        ({"preferred_output": []}, True),
        ({"non_preferred_completion": []}, True),
        ({"messages": [], "input": {}}, False),
        ({"prompt": "a", "completion": "b"}, False),
        ({}, False),
    ],
)
def test_what_is_meant_as_a_preference(line: dict[str, Any], meant: bool) -> None:
    assert is_preference(line) is meant
