"""Whatever a file was written for, its items become lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.preparing import chat, json_lines, reading, table
from tunery.datasets.preparing.columns import ColumnMapping, given, guess
from tunery.datasets.preparing.items import Item, Unreadable
from tunery.datasets.preparing.shapes import Plan, Shape, plan_for
from tunery.datasets.preparing.sources import open_source
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import LineFormat


def lines(path: Path, **options: Any) -> tuple[Plan, list[Any]]:
    """Return how a file is read, and each item's line, or what is wrong with it."""
    one = reading(path, **options)
    found = [one.plan.line(item) for item in one.source.read(lambda done: None)]
    return one.plan, [line if problem is None else problem for line, problem in found]


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("id", "Question", "Answer"), ColumnMapping("Question", "Answer")),
        (("output", "input"), ColumnMapping("input", "output")),
        (("text", "label"), ColumnMapping("text", "label")),
        (("User Message", "reply", "System Prompt"),
         ColumnMapping("User Message", "reply", "System Prompt")),
        (("prompt", "chosen", "rejected"),
         ColumnMapping("prompt", preferred="chosen", non_preferred="rejected")),
        (("one", "two"), ColumnMapping("one", "two")),
        (("completion",), ColumnMapping(completion="completion")),
        (("one", "two", "three"), None),
        (("prompt", "two", "three"), None),
    ],
)  # fmt: skip
def test_columns_are_guessed_from_their_names_or_of_two_from_their_order(
    columns: tuple[str, ...], expected: ColumnMapping | None
) -> None:
    assert guess(columns) == expected


def test_columns_that_are_named_are_taken_and_others_guessed_beside_them() -> None:
    columns = ("id", "title", "body", "answer", "tone")
    assert given(columns, {"prompt": "body"}) == ColumnMapping("body", "answer")
    assert given(columns, {"prompt": "body", "completion": "tone"}) == ColumnMapping("body", "tone")
    assert given(columns, {"prompt": None}) is None
    with pytest.raises(InvalidRequest, match=r"Got --prompt 'bodies'; the columns are id, title"):
        given(columns, {"prompt": "bodies"})
    with pytest.raises(InvalidRequest, match="name it with --completion"):
        given(("a", "b", "c"), {"prompt": "a"})


SHAREGPT = {
    "id": "x",
    "system": "Be brief.",
    "conversations": [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"place": "here"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ],
    "tools": '[{"name": "look", "parameters": {"type": "object"}}]',
}
ALPACA = {
    "instruction": "Translate.",
    "input": "Hund",
    "output": "dog",
    "history": [["Hallo", "hello"]],
}


def node(parent: str | None, role: str, text: str, **more: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    return {"parent": parent, "message": {"author": {"role": role}, "content": content, **more}}


CHATGPT = {
    "title": "A talk",
    "current_node": "f",
    "mapping": {
        "root": {"parent": None, "message": None},
        "a": node("root", "system", ""),
        "b": node("a", "user", "Hi"),
        "c": node("b", "assistant", "an answer that was thrown away"),
        "d": node("b", "assistant", "search()", recipient="browser"),
        "e": node("d", "tool", "found"),
        "e2": node("e", "assistant", "Hello."),
        "f": node("e2", "assistant", "And more."),
        "g": node("c", "user", "on the branch that was left"),
    },
}


def test_sharegpt_with_calls_becomes_tools(tmp_path: Path) -> None:
    plan, found = lines(put(tmp_path, "a.json", json.dumps([SHAREGPT]).encode()))
    assert plan.shape is Shape.SHAREGPT
    (line,) = found
    assert [message["role"] for message in line["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    (call,) = line["messages"][2]["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": '{"place":"here"}'}
    assert line["messages"][3]["tool_call_id"] == call["id"]
    function = {"name": "look", "parameters": {"type": "object"}}
    assert line["tools"] == [{"type": "function", "function": function}]


def test_alpaca_joins_its_input_and_does_not_learn_its_history(tmp_path: Path) -> None:
    plan, found = lines(put(tmp_path, "a.json", json.dumps([ALPACA]).encode()))
    assert plan.shape is Shape.ALPACA
    assert found == [
        {
            "messages": [
                {"role": "user", "content": "Hallo"},
                {"role": "assistant", "content": "hello", "weight": 0},
                {"role": "user", "content": "Translate.\n\nHund"},
                {"role": "assistant", "content": "dog"},
            ]
        }
    ]


def test_a_chatgpt_export_gives_the_branch_that_was_shown_last(tmp_path: Path) -> None:
    image = {"content_type": "multimodal_text", "parts": [{"asset_pointer": "file"}, "What?"]}
    seen = {
        "mapping": {
            "a": {"parent": None, "message": {"author": {"role": "user"}, "content": image}},
            "b": node("a", "assistant", "A cat."),
        },
        "current_node": "b",
    }
    data = json.dumps([CHATGPT, seen, {"mapping": {}}]).encode()
    plan, found = lines(put(tmp_path, "conversations.json", data))
    assert plan.shape is Shape.CHATGPT
    assert found[0] == chat("Hi", "Hello.\n\nAnd more.")
    assert "images or sounds" in found[1]
    assert "nothing in it was answered" in found[2]


def test_a_table_becomes_chats_pairs_or_preferences(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", table([{"q": "Hi", "a": "Hello", "system": "Be kind."}]))
    _, found = lines(path)
    assert found == [
        {"messages": [{"role": "system", "content": "Be kind."}, *chat("Hi", "Hello")["messages"]]}
    ]
    path = put(tmp_path, "b.csv", table([{"q": "Hi", "a": "Hello"}]))
    plan, found = lines(path, target=LineFormat.COMPLETION)
    assert found == [{"prompt": "Hi", "completion": "Hello"}]
    row = {"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}
    plan, found = lines(put(tmp_path, "c.jsonl", json_lines([row])))
    assert plan.target is LineFormat.PREFERENCE
    assert found == [
        {
            "input": {"messages": [{"role": "user", "content": "Hi"}]},
            "preferred_output": [{"role": "assistant", "content": "Hello"}],
            "non_preferred_output": [{"role": "assistant", "content": "What?"}],
        }
    ]


def test_messages_may_stand_in_a_cell(tmp_path: Path) -> None:
    cell = json.dumps(chat("Hi", "Hello")["messages"])
    path = put(tmp_path, "a.csv", table([{"messages": cell}, {"messages": "[{"}]))
    plan, found = lines(path)
    assert plan.shape is Shape.CHAT
    assert found[0] == chat("Hi", "Hello")
    assert "'messages' is no JSON" in found[1]


def test_a_system_message_is_put_where_there_is_none(tmp_path: Path) -> None:
    with_one = {"messages": [{"role": "developer", "content": "x"}, *chat("a", "b")["messages"]]}
    path = put(tmp_path, "a.jsonl", json_lines([chat("a", "b"), with_one]))
    _, found = lines(path, system="Be kind.")
    assert found[0]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert found[1] == with_one
    pair = put(tmp_path, "b.jsonl", json_lines([{"prompt": "a", "completion": "b"}]))
    _, found = lines(pair, system="Be kind.")
    first = {"role": "system", "content": "Be kind."}
    assert found == [{"messages": [first, *chat("a", "b")["messages"]]}]
    assert lines(pair)[1] == [{"prompt": "a", "completion": "b"}]


def test_plain_lines_have_no_prompt_and_become_no_chats(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", b"one\r\n\r\ntwo\n")
    plan, found = lines(path)
    assert plan.target is LineFormat.COMPLETION
    assert found == [{"prompt": "", "completion": one} for one in ("one", "two")]
    with pytest.raises(Unreadable, match="Plain lines of text ask nothing"):
        reading(path, system="Be kind.")


def test_what_cannot_become_pairs_says_so(tmp_path: Path) -> None:
    path = put(tmp_path, "a.jsonl", json_lines([chat("a", "b")]))
    with pytest.raises(Unreadable, match="leave out --to text"):
        plan_for(open_source(path), {}, target=LineFormat.COMPLETION)


def test_an_item_without_a_value_keeps_its_problem() -> None:
    plan = Plan(Shape.CHAT, LineFormat.CHAT)
    assert plan.line(Item(3, None, "not JSON")) == (None, "not JSON")
