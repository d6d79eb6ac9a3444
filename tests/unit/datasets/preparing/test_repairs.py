"""Lines that the service would refuse: what is mended, what is named, and how."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.preparing import chat
from support.properties import untimed
from tunery.datasets.checks import LineChecker
from tunery.datasets.preparing.faults import Fault
from tunery.datasets.preparing.images import image_fault
from tunery.datasets.preparing.repairs import REPAIRS, mended
from tunery.datasets.preparing.survey import fit_line

USER, ANSWER = chat("Hi", "Hello")["messages"]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PNG = "data:image/png;base64,AAAA"


def image(url: str = PNG, **more: Any) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url, **more}}
    return {"role": "user", "content": [{"type": "text", "text": "What?"}, part]}


def line(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


@pytest.mark.parametrize(
    ("bad", "name", "good"),
    [
        (
            line({"role": "Human", "content": "Hi"}, {"role": "gpt", "content": "Hello"}),
            "rename_roles",
            line(USER, ANSWER),
        ),
        (line(USER, ANSWER, id=5, source="x"), "drop_line_keys", line(USER, ANSWER)),
        (line(USER | {"time": 5}, ANSWER), "drop_message_keys", line(USER, ANSWER)),
        (
            line(USER | {"name": " Ann <b> "}, ANSWER),
            "spell_names",
            line(USER | {"name": "Ann_b_"}, ANSWER),
        ),
        (line(USER | {"name": " "}, ANSWER), "spell_names", line(USER, ANSWER)),
        (
            line(USER, ANSWER | {"weight": True}),
            "set_weights",
            line(USER, ANSWER | {"weight": 1}),
        ),
        (
            line(USER, ANSWER | {"weight": "0"}, USER, ANSWER | {"weight": None}),
            "set_weights",
            line(USER, ANSWER | {"weight": 0}, USER, ANSWER),
        ),
        (
            line(USER, {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ]}),
            "write_arguments",
            line(USER, {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c", "type": "function",
                 "function": {"name": "f", "arguments": '{"a":1}'}}
            ]}),
        ),
        (line(USER, ANSWER, parallel_tool_calls=False), "drop_parallel", line(USER, ANSWER)),
        (line(USER, ANSWER, USER), "end_with_answer", line(USER, ANSWER)),
        ({"prompt": 5, "completion": True}, "write_texts", {"prompt": "5", "completion": "true"}),
        (
            {"prompt": "a", "completion": "b", "id": 1},
            "drop_line_keys",
            {"prompt": "a", "completion": "b"},
        ),
    ],
)  # fmt: skip
def test_what_is_meant_is_kept(bad: dict[str, Any], name: str, good: dict[str, Any]) -> None:
    before = copy.deepcopy(bad)
    fixed, repairs, fault, _ = fit_line(LineChecker(), bad)
    assert fault is None
    assert fixed == good
    assert [repair.name for repair in repairs] == [name]
    assert bad == before, "a line is not changed in place"
    assert LineChecker().problem_of(good) is None


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ({"message": []}, Fault.MISSING_MESSAGES_LIST),
        ({"messages": {}}, Fault.MISSING_MESSAGES_LIST),
        (line({"content": "Hi"}, ANSWER), Fault.MESSAGE_MISSING_KEY),
        (line({"role": "user"}, ANSWER), Fault.MESSAGE_MISSING_KEY),
        (line(USER, {"role": "boss", "content": "x"}, ANSWER), Fault.UNRECOGNIZED_ROLE),
        (line({"role": "user", "content": None}, ANSWER), Fault.MISSING_CONTENT),
        (line({"role": "user", "content": 5}, ANSWER), Fault.MISSING_CONTENT),
        (line(USER), Fault.NO_ASSISTANT_MESSAGE),
        (line(USER, ANSWER | {"content": ""}), Fault.EMPTY_ANSWER),
        (line(USER, ANSWER | {"content": " \n"}), Fault.EMPTY_ANSWER),
        ({"prompt": "a", "completion": ""}, Fault.EMPTY_ANSWER),
        ({"prompt": "a", "completion": " "}, Fault.EMPTY_ANSWER),
        ({"prompt": "a"}, Fault.MESSAGE_MISSING_KEY),
        ({"prompt": ["a"], "completion": "b"}, Fault.MISSING_CONTENT),
        (line(USER, ANSWER | {"weight": 0}), Fault.WEIGHTS),
        (
            line(USER, {"role": "assistant", "tool_calls": [CALL]}, USER, ANSWER),
            Fault.TOOLS,
        ),
        (line(USER, {"role": "tool", "tool_call_id": "c", "content": "1"}, ANSWER), Fault.TOOLS),
        (line(image(), ANSWER), Fault.IMAGES),
        ({"input": {"messages": []}, "preferred_output": []}, Fault.OTHER),
    ],
)
def test_what_cannot_be_mended_has_a_name(bad: dict[str, Any], fault: Fault) -> None:
    fixed, repairs, found, why = fit_line(LineChecker(), bad)
    assert (fixed, repairs, found) == (None, (), fault)
    assert why


@pytest.mark.parametrize(
    "good",
    [
        line(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}),
        line(USER, {"role": "assistant", "tool_calls": [CALL]},
             {"role": "tool", "tool_call_id": "c", "content": "1"}, ANSWER),
        line(USER, {"role": "assistant", "function_call": CALL["function"]}),
    ],
)  # fmt: skip
def test_calls_without_content_are_right_where_the_notebook_calls_them_wrong(
    good: dict[str, Any],
) -> None:
    fixed, repairs, fault, _ = fit_line(LineChecker(), good)
    assert fixed is good
    assert (repairs, fault) == ((), None)


def test_a_file_of_another_kind_is_told_from_its_first_lines() -> None:
    checker = LineChecker()
    assert fit_line(checker, line(USER, ANSWER))[2] is None
    assert fit_line(checker, {"prompt": "a", "completion": "b"})[2] is Fault.MIXED_KINDS


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (line(image("ftp://a/b.png"), ANSWER), "neither HTTP nor data"),
        (line(image("data:image/gif;base64,AAAA"), ANSWER), "no PNG, JPEG or WEBP"),
        (line(image(detail="huge"), ANSWER), "detail is none of auto, low, high"),
        (line(*[image()] * 11, ANSWER), "11 images; at most 10"),
        (line(image("data:image/png;base64," + "A" * (14 << 20)), ANSWER), "more than 10 MiB"),
        (line(USER, image() | {"role": "assistant"}), "is from 'assistant' and has an image"),
    ],
)
def test_images_that_openai_would_refuse_are_told_as_such(bad: dict[str, Any], words: str) -> None:
    assert words in (image_fault(bad) or "")
    *_, fault, why = fit_line(LineChecker(), bad)
    assert fault is Fault.IMAGES
    assert words in why


def test_images_in_order_are_only_more_than_a_base_here_reads() -> None:
    good = line(image("https://example.com/a.png", detail="low"), image(), ANSWER)
    assert image_fault(good) is None
    *_, why = fit_line(LineChecker(), good)
    assert why == "has images, each of them as OpenAI takes it"
    # Whatever else is wrong with the line comes first.
    *_, fault, why = fit_line(LineChecker(), line(image(), USER, {"role": "assistant"}))
    assert fault is Fault.MESSAGE_MISSING_KEY


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text("ab "),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["messages", "role", "content", "name", "weight", "tool_calls", "function",
                 "function_call", "arguments", "prompt", "completion", "tools", "input", "x"]
            ),
            inner | st.sampled_from(["user", "assistant", "Human", "tool", "{}"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "completion", "input", "tools"]),
        VALUES
        | st.lists(
            st.fixed_dictionaries({"role": VALUES, "content": VALUES}, optional={"weight": VALUES})
        ),
    )
)
@untimed
def test_any_object_is_mended_into_what_the_check_takes_or_named(value: dict[str, Any]) -> None:
    before = json.dumps(value)
    fixed, repairs, fault, why = fit_line(LineChecker(), value)
    assert json.dumps(value) == before
    if fixed is None:
        assert fault is not None
        assert why
    else:
        assert LineChecker().problem_of(fixed) is None
        assert fixed is value or repairs
        assert mended(fixed) == (fixed, ())


def test_a_good_line_is_changed_by_no_repair() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    good = line(
        {"role": "system", "content": "x", "name": "s"},
        USER | {"name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        ANSWER | {"weight": 1},
        tools=[tool],
        parallel_tool_calls=True,
    )
    assert LineChecker().problem_of(good) is None
    for repair in REPAIRS:
        assert repair.mend(good) is good
