"""What a training line must be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.datasets.checks import (
    MAX_LISTED_ERRORS,
    check_chat_line,
    check_file,
    check_preference_line,
)
from tunery.domain.files import LineError, LineFormat

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Hello"}


def chat(*messages: object) -> dict[str, Any]:
    return {"messages": list(messages)}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def call(number: int = 1, arguments: str = "{}", name: str = "f", **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function, **more}


def calls(*given: object) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(given)}


def result(number: int = 1) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": "1"}


CALLED = {"name": "f", "arguments": '{"a": 1}'}
OLD_CALL: dict[str, Any] = {"role": "assistant", "function_call": CALLED}
OLD_RESULT = {"role": "function", "name": "f", "content": "1"}
DEFINED = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
TOOL: dict[str, Any] = {"type": "function", "function": DEFINED}


GOOD = [
    chat(USER, ANSWER),
    chat(ANSWER),
    chat({"role": "system", "content": ""}, USER, ANSWER),
    chat({"role": "developer", "content": "Be kind."}, {"role": "user", "content": ""}, ANSWER),
    chat({"role": "user", "content": [text("a"), text("")]}, ANSWER),
    chat(USER, {"role": "assistant", "content": [text("a"), text("b")]}),
    chat(USER, ANSWER | {"weight": 0}, USER, ANSWER | {"weight": 1}),
    chat(USER, ANSWER, USER, ANSWER | {"weight": 0}),
    chat(USER | {"name": "ann"}, ANSWER),
    chat(USER, calls(call())) | {"tools": [TOOL]},
    chat(USER, calls(call(1), call(2)), result(2), result(1), ANSWER) | {"tools": [TOOL]},
    chat(USER, calls(call()) | {"content": "Wait.", "weight": 0}, result(), ANSWER),
    chat(USER, calls(call()), result(), calls(call()), result(), calls(call())),
    chat(USER, calls(call())) | {"tools": [TOOL], "parallel_tool_calls": False},
    chat(USER, OLD_CALL, OLD_RESULT, ANSWER) | {"functions": [DEFINED, {"name": "g"}]},
    chat(USER, OLD_CALL) | {"tools": None},
    chat(USER, ANSWER) | {"tools": []},
    chat(USER | {"name": None}, ANSWER | {"refusal": None, "annotations": [], "tool_calls": None}),
]
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {},
        "Unexpected file format, expected either prompt/completion pairs or chat messages."
        " The key 'messages' is missing",
    ),
    (chat(USER, ANSWER) | {"tools": {}}, "'tools' needs to be a list"),
    (chat(USER, ANSWER) | {"tools": [TOOL] * 129}, "at most 128"),
    (chat(USER, ANSWER) | {"tools": [TOOL], "functions": [DEFINED]}, "'tools' and 'functions'"),
    (chat(USER, ANSWER) | {"tools": [TOOL, TOOL]}, "tool 2 has the name 'f' of an earlier one"),
    (chat(USER, ANSWER) | {"tools": ["f"]}, "tool 1 is of type 'f'"),
    (chat(USER, ANSWER) | {"tools": [{"type": "custom"}]}, "tool 1 is of type 'custom'"),
    (chat(USER, ANSWER) | {"tools": [DEFINED | {"type": "function"}]}, "tool 1 has the keys"),
    (chat(USER, ANSWER) | {"tools": [TOOL | {"function": 1}]}, "tool 1 is 1"),
    (chat(USER, ANSWER) | {"functions": [{"name": "a b"}]}, "function 1 has name 'a b'"),
    (chat(USER, ANSWER) | {"functions": [{}]}, "function 1 has name None"),
    (chat(USER, ANSWER) | {"functions": [{"name": 5}]}, "function 1 has name 5"),
    (chat(USER, ANSWER) | {"functions": [{"name": "f", "x": 1}]}, "function 1 has the key 'x'"),
    (chat(USER, ANSWER) | {"functions": [{"name": "f", "parameters": []}]}, "has parameters []"),
    (chat(USER, ANSWER) | {"parallel_tool_calls": False}, "without 'tools'"),
    (chat(USER, ANSWER) | {"tools": [TOOL], "parallel_tool_calls": 1}, "needed true or false"),
    (chat(USER, ANSWER) | {"id": 1}, "extra 'id'"),
    ({"messages": {}}, "list of at least one message"),
    ({"messages": None}, "list of at least one message"),
    (chat(), "list of at least one message"),
    (chat(USER, "Hello"), "message 2 is not a dictionary"),
    (chat({"content": "Hi"}, ANSWER), "message 1 has no 'role'"),
    (chat(USER | {"role": "bot"}, ANSWER), "message 1 has role 'bot'"),
    (chat(USER | {"role": ["user"]}, ANSWER), "message 1 has role"),
    (chat(USER | {"role": None}, ANSWER), "message 1 has role None"),
    (chat(USER, {"role": "tool", "content": "x"}, ANSWER), "has tool_call_id None"),
    (chat(USER, {"role": "function", "content": "x"}, ANSWER), "has name None"),
    (chat(USER, result(), ANSWER), "message 2 answers the call 'call_1', and there is none"),
    (chat(USER, calls(call()), result(), result(), ANSWER), "message 4 answers the call 'call_1'"),
    (chat(USER, calls(call()), ANSWER), "message 2 has the call 'call_1', which no message"),
    (chat(USER, calls(call(1), call(2)), result(2), ANSWER), "has the call 'call_1', which no"),
    (chat(USER, OLD_RESULT, ANSWER), "answers the function 'f', which was not called before"),
    (chat(USER, calls(call(arguments="{")), result(), ANSWER), "call 1, which has arguments '{'"),
    (chat(USER, calls(call(arguments="[]"))), "has arguments '[]'; needed is a JSON object"),
    (chat(USER, calls(call(arguments='{"a": NaN}'))), "has arguments"),
    (chat(USER, calls(call(arguments='{"a": "\\ud800"}'))), "has arguments"),
    (chat(USER, calls(call(name="a b"))), "call 1, which calls 'a b'"),
    (chat(USER, calls(call(name="g"))) | {"tools": [TOOL]}, "'g', which is not among the line's"),
    (chat(USER, calls(call(), call())), "has two calls of the same id"),
    (
        chat(USER, calls(call(1), call(2))) | {"tools": [TOOL], "parallel_tool_calls": False},
        "has several calls, and 'parallel_tool_calls' is false",
    ),
    (chat(USER, calls(call(index=0))), "needed are id, type and function"),
    (chat(USER, calls(call(type="custom"))), "is of type 'custom'"),
    (chat(USER, calls(call(id=5))), "has id 5"),
    (chat(USER, calls(5)), "has call 1, which is 5"),
    (chat(USER, ANSWER | {"tool_calls": 5}), "has tool_calls 5"),
    (chat(USER, ANSWER | {"function_call": {"name": "f"}}), "needed are name and arguments"),
    (chat(USER, calls(call()) | {"function_call": CALLED}), "which are the same thing"),
    (chat(USER | {"tool_calls": [call()]}, ANSWER), "message 1 has the key 'tool_calls'"),
    (chat(USER | {"name": "Ann Lee"}, ANSWER), "message 1 has name 'Ann Lee'"),
    (chat(USER | {"name": 5}, ANSWER), "message 1 has name 5"),
    (chat(USER, ANSWER | {"name": "bot"}), "message 2 has the key 'name'"),
    (chat(USER, {"role": "assistant", "content": None, "tool_calls": []}), "has content None"),
    (chat(USER | {"weight": 1}, ANSWER), "message 1 has a 'weight', but is from 'user'"),
    (chat(USER, ANSWER | {"weight": 2}), "message 2 has weight 2"),
    (chat(USER, ANSWER | {"weight": True}), "message 2 has weight True"),
    (chat(USER, ANSWER | {"weight": 1.0}), "message 2 has weight 1.0"),
    (chat(USER, ANSWER | {"weight": None}), "message 2 has weight None"),
    (chat({"role": "user"}, ANSWER), "message 1 has content None"),
    (chat(USER | {"content": 5}, ANSWER), "message 1 has content 5"),
    (chat(USER | {"content": []}, ANSWER), "message 1 has content []"),
    (chat(USER | {"content": {"type": "text"}}, ANSWER), "message 1 has content {"),
    (chat(USER | {"content": ["a"]}, ANSWER), "message 1 has a content part 'a'"),
    (chat(USER | {"content": [{"type": "image_url"}]}, ANSWER), "part 'image_url'"),
    (chat(USER | {"content": [{"type": "text"}]}, ANSWER), "message 1 has a text part that is not"),
    (chat(USER | {"content": [text("a") | {"x": 1}]}, ANSWER), "has a text part that is not"),
    (
        chat(USER | {"content": [{"type": "text", "text": 1}]}, ANSWER),
        "has a text part that is not",
    ),
    (chat(USER, ANSWER | {"content": ""}), "message 2 is from 'assistant' and empty"),
    (chat(USER, ANSWER | {"content": [text("")]}), "message 2 is from 'assistant' and empty"),
    (chat(USER), "the last message is from 'user'"),
    (chat(USER, ANSWER, USER), "the last message is from 'user'"),
    (chat(USER, ANSWER | {"weight": 0}), "nothing to learn"),
]


@pytest.mark.parametrize("line", GOOD)
def test_a_chat_is_fit_to_train_on(line: dict[str, Any]) -> None:
    assert check_chat_line(line) is None


@pytest.mark.parametrize(("line", "says"), BAD)
def test_what_cannot_be_trained_on_is_named(line: dict[str, Any], says: str) -> None:
    problem = check_chat_line(line)
    assert problem is not None
    assert says in problem


WORSE: dict[str, Any] = {"role": "assistant", "content": "What?"}


def pair(*messages: object, better: Any = ANSWER, worse: Any = WORSE, **more: Any) -> Any:
    """Return a preference line; `more` goes into its input."""
    return {
        "input": {"messages": list(messages), **more},
        "preferred_output": [better],
        "non_preferred_output": [worse],
    }


def with_output(output: Any) -> dict[str, Any]:
    return {**pair(USER), "preferred_output": output}


def without(key: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in pair(USER).items() if name != key} | more


GOOD_PAIRS: list[dict[str, Any]] = [
    pair(USER),
    without("preferred_output", preferred_completion=[ANSWER]),
    without("non_preferred_output", non_preferred_completion=[WORSE]),
    {
        "input": {"messages": [USER]},
        "preferred_completion": [ANSWER],
        "non_preferred_completion": [WORSE],
    },
    pair({"role": "system", "content": "Be kind."}, USER, WORSE, USER),
    pair(USER, WORSE | {"weight": 0}, USER),
    pair(USER, ANSWER),  # the next answer follows an answer
    pair(USER, better=calls(call()), tools=[TOOL], parallel_tool_calls=False),
    pair(USER, better=calls(call()), worse=calls(call(arguments='{"a": 1}')), tools=[TOOL]),
    pair(USER, calls(call()), result(), tools=[TOOL]),
    pair(USER, better=OLD_CALL),
    pair(USER, better=ANSWER | {"refusal": None, "tool_calls": []}),
    pair(USER, better=ANSWER | {"content": [text("a"), text("b")]}),
    pair(USER, tools=None),
    pair(USER, tools=[], parallel_tool_calls=True),  # as in the example of OpenAI's guide
]
BAD_PAIRS: list[tuple[dict[str, Any], str]] = [
    (without("input"), "the key 'input' is missing"),
    (without("preferred_output"), "the key 'preferred_output' is missing"),
    (without("non_preferred_output"), "the key 'non_preferred_output' is missing"),
    (
        {**pair(USER), "preferred_completion": [ANSWER]},
        "has 'preferred_output' and 'preferred_completion', which are the same thing",
    ),
    (
        {**pair(USER), "non_preferred_completion": [ANSWER]},
        "has 'non_preferred_output' and 'non_preferred_completion', which are the same thing",
    ),
    ({**pair(USER), "tools": []}, "contains an extra 'tools'; known are input, preferred_output"),
    ({**pair(USER), "input": [USER]}, "'input' is [{'role': 'user', 'content': 'Hi'}]; needed"),
    ({**pair(USER), "input": {}}, "'input': the key 'messages' is missing"),
    (pair(USER, functions=[DEFINED]), "'input': contains an extra 'functions'; known are messages"),
    (pair(), "'input': 'messages' needs to be a list of at least one message"),
    (pair("Hi"), "'input': message 1 is not a dictionary"),
    (pair(USER, {"role": "bot"}), "'input': message 2 has role 'bot'"),
    (pair(USER, ANSWER | {"weight": 1}), "'input': message 2 has weight 1; only the outputs are"),
    (pair(USER, ANSWER | {"weight": 2}), "'input': message 2 has weight 2"),
    (pair(USER, calls(call())), "'input': message 2 has the call 'call_1', which no message"),
    (pair(USER, tools=[TOOL, TOOL]), "'input': tool 2 has the name 'f' of an earlier one"),
    (pair(USER, tools=[TOOL] * 129), "'input': 'tools' needs to be a list of at most 128"),
    (pair(USER, parallel_tool_calls=True), "'input': has 'parallel_tool_calls' without 'tools'"),
    (with_output(ANSWER), "'preferred_output' is {'role': 'assistant', 'content': 'Hel...; needed"),
    (with_output([]), "'preferred_output' is []; needed is a list of one message"),
    (with_output([ANSWER, ANSWER]), "'preferred_output' is [{'role'"),
    (with_output(["Hi"]), "'preferred_output' is not a dictionary"),
    (with_output([USER]), "'preferred_output' is from 'user'; it needs to be from 'assistant'"),
    (with_output([{"role": "assistant"}]), "'preferred_output' has content None"),
    (with_output([ANSWER | {"content": ""}]), "'preferred_output' is from 'assistant' and empty"),
    (with_output([ANSWER | {"weight": 1}]), "'preferred_output' has a 'weight'; it is always"),
    (pair(USER, worse=USER), "'non_preferred_output' is from 'user'"),
    (
        pair(USER, worse=calls(call(name="g")), tools=[TOOL]),
        "'non_preferred_output' has call 1, which calls 'g', which is not among",
    ),
    (
        pair(USER, better=calls(call(1), call(2)), tools=[TOOL], parallel_tool_calls=False),
        "'preferred_output' has several calls, and 'parallel_tool_calls' is false",
    ),
    (pair(USER, worse=ANSWER), "both outputs are the same: there is nothing to prefer"),
    (pair(USER, worse=ANSWER | {"content": [text("Hello")]}), "both outputs are the same"),
]


@pytest.mark.parametrize("line", GOOD_PAIRS)
def test_a_pair_is_fit_to_train_on(line: dict[str, Any]) -> None:
    assert check_preference_line(line) is None


@pytest.mark.parametrize(("line", "says"), BAD_PAIRS)
def test_what_is_wrong_with_a_pair_is_named(line: dict[str, Any], says: str) -> None:
    problem = check_preference_line(line)
    assert problem is not None
    assert problem.startswith(says)
    assert len(problem) < 160


def test_a_file_of_pairs_is_reported_line_by_line() -> None:
    rows = [pair(USER), "", pair(USER, worse=ANSWER), chat(USER, ANSWER), {}, pair(USER)]
    data = "\n".join("" if row == "" else json.dumps(row) for row in rows).encode()
    report = check_file(data[i : i + 7] for i in range(0, len(data), 7))
    assert (report.examples, report.error_count) == (5, 3)
    assert report.line_format is LineFormat.PREFERENCE
    assert report.errors == (
        LineError(3, "both outputs are the same: there is nothing to prefer"),
        LineError(
            4,
            "The lines before it have a preference pair, this one chat messages; a file has one"
            " kind",
        ),
        LineError(5, "the key 'input' is missing"),
    )


def test_a_pair_among_chats_is_out_of_place() -> None:
    rows: list[Any] = [{}, "x", chat(USER, ANSWER), pair(USER)]
    report = check_file(["\n".join(map(json.dumps, rows)).encode()])
    assert report.line_format is LineFormat.CHAT
    assert report.errors[2:] == (
        LineError(
            4,
            "The lines before it have chat messages, this one a preference pair; a file has one"
            " kind",
        ),
    )


def test_a_file_is_reported_with_each_bad_line_once_under_its_number() -> None:
    good, bad = json.dumps(GOOD[0]), json.dumps(chat(USER))
    rows = [good, "", bad, "{'a': 1}", "  ", good, "[]", good]
    data = "\r\n".join(rows).encode()
    report = check_file(data[i : i + 7] for i in range(0, len(data), 7))
    assert (report.examples, report.error_count) == (6, 3)
    assert [error.line for error in report.errors] == [3, 4, 7]
    assert [error.message for error in report.errors] == [
        "the last message is from 'user'; it needs to be from 'assistant'",
        "not JSON: unexpected character, expected a string key (character 2)",
        "needed a JSON dictionary, got a list",
    ]


def test_a_line_with_several_faults_is_one_error() -> None:
    row = json.dumps(chat({"role": "bot", "name": 1}, "x", USER) | {"tools": 1}).encode()
    report = check_file([row])
    assert (report.examples, report.error_count, len(report.errors)) == (1, 1, 1)


@pytest.mark.parametrize("count", [MAX_LISTED_ERRORS, MAX_LISTED_ERRORS + 1, 500])
def test_the_first_errors_are_listed_and_all_are_counted(count: int) -> None:
    report = check_file([b"{}\n" * count])
    assert (report.examples, report.error_count) == (count, count)
    expected = [LineError(line, BAD[0][1]) for line in range(1, min(count, MAX_LISTED_ERRORS) + 1)]
    assert list(report.errors) == expected


def test_an_empty_file_has_no_examples_and_no_errors() -> None:
    report = check_file([b"\xef\xbb\xbf", b"\n\n"])
    assert (report.examples, report.error_count, report.errors) == (0, 0, ())


def test_a_message_quotes_only_a_few_characters_of_the_line() -> None:
    secret = "s" * 10_000
    for line in (
        chat(USER | {"role": secret}),
        chat(USER | {secret: 1}),
        chat(USER | {"content": {"a": secret}}),
        chat(USER) | {secret: 1},
    ):
        problem = check_chat_line(line)
        assert problem is not None
        assert len(problem) < 160


@pytest.mark.parametrize("place", ["role", "content"])
def test_deep_nesting_is_an_error_of_its_line_not_of_the_check(place: str) -> None:
    # As deep as the JSON parser goes, and deeper than Python's repr does.
    deep = b"[" * 1015 + b"]" * 1015
    value = deep if place == "role" else b'{"a":%s}' % deep
    message = {"role": b'{"role":%s}', "content": b'{"role":"user","content":%s}'}[place] % value
    report = check_file([b'{"messages":[%s]}' % message])
    assert (report.error_count, [error.line for error in report.errors]) == (1, [1])


def test_a_key_given_twice_is_an_error_of_its_line() -> None:
    good = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'
    twice = good.replace(b'"content":"b"', b'"content":"c","content":"b"')
    report = check_file([good, twice, b"\n", good])
    assert (report.examples, report.error_count) == (3, 1)
    assert report.errors == (LineError(2, "the key 'content' stands twice in one dictionary"),)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "weight", "type", "text", "function", "tool_calls", "name"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@untimed
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "input": st.fixed_dictionaries({"messages": JSON}, optional={"tools": JSON}) | JSON,
            "preferred_output": st.lists(JSON, max_size=2),
            "non_preferred_completion": JSON,
        },
    )
)
def test_no_pair_breaks_the_check(line: dict[str, Any]) -> None:
    problem = check_preference_line(line)
    assert problem is None or problem


@untimed
@given(st.dictionaries(st.sampled_from(["messages", "tools", "functions", "prompt"]), JSON))
def test_no_line_breaks_the_check(line: dict[str, Any]) -> None:
    problem = check_chat_line(line)
    assert problem is None or problem
