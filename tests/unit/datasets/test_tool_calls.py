"""An answer's text to what it says and calls: the same at whatever places it is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.datasets.tool_calls import Arguments, CallBegun, CallParser, Piece, Said
from tunery.datasets.tools import PLAIN, CallForm

NAMES = ("look_up", "look", "note")
BARE = CallForm('{"name": "', '", "parameters": ', None, "}", after_text=False)
LISTED = CallForm(
    '<m>[{"name": "', '", "arguments": ', '}, {"name": "', "}]", special=(("<m>", 5),)
)


def ours(name: str, arguments: str) -> str:
    return PLAIN.written([(name, arguments)])


NASTY = r'{"a": "}{\"\\", "b": [{"c": "</tool_call>"}, "]"], "é": null}'
TWO = PLAIN.written([("look_up", '{"key": "k1"}'), ("note", "{}")])
# A form, a text, what it says, and the calls.
READ: list[tuple[CallForm, str, str, list[tuple[str, str]]]] = [
    (PLAIN, "Hello there.\n", "Hello there.\n", []),
    (PLAIN, " \n", " \n", []),
    (PLAIN, "a <tool or < b <tool_call", "a <tool or < b <tool_call", []),
    (PLAIN, ours("look_up", '{"key": "k1"}'), "", [("look_up", '{"key": "k1"}')]),
    (PLAIN, ours("look", "{}"), "", [("look", "{}")]),
    (PLAIN, f"Let me see. \n\n{ours('note', NASTY)}\n", "Let me see.", [("note", NASTY)]),
    (PLAIN, TWO, "", [("look_up", '{"key": "k1"}'), ("note", "{}")]),
    (PLAIN, f"{TWO} and more {TWO}", "", [("look_up", '{"key": "k1"}'), ("note", "{}")]),
    # No calls: another name, another form, no arguments.
    (PLAIN, ours("other", "{}"), ours("other", "{}"), []),
    (PLAIN, f"<tool_call> {ours('note', '{}')}", "<tool_call>", [("note", "{}")]),
    (PLAIN, '<tool_call>{"name": "note"}', '<tool_call>{"name": "note"}', []),
    (PLAIN, ours("note", "[]"), ours("note", "[]"), []),
    (PLAIN, ours("note", '"x"'), ours("note", '"x"'), []),
    # Cut off: within the marks, within the arguments, between two calls.
    (PLAIN, 'So:\n<tool_call>\n{"name": "no', "So:", []),
    (PLAIN, '<tool_call>\n{"name": "note", "arguments": ', "", []),
    (PLAIN, '<tool_call>\n{"name": "note", "arguments": {"a', "", [("note", '{"a')]),
    (PLAIN, ours("note", "{}")[:-5], "", [("note", "{}")]),
    (PLAIN, TWO[:-40], "", [("look_up", '{"key": "k1"}')]),
    # A call without marks of its own begins an answer, or there is none.
    (BARE, '{"name": "note", "parameters": {"a": 1}}', "", [("note", '{"a": 1}')]),
    (BARE, ' {"name": "note", "parameters": {}}', "", [("note", "{}")]),
    (BARE, 'So: {"name": "note", "parameters": {}}', 'So: {"name": "note", "parameters": {}}', []),
    (BARE, '{"name": "Ann", "age": 5}', '{"name": "Ann", "age": 5}', []),
    (BARE, '{"na', '{"na', []),
    # Special tokens are not seen.
    (
        LISTED,
        'So [1] [{"name": "note", "arguments": {"a": []}}, {"name": "look", "arguments": {}}]',
        "So [1]",
        [("note", '{"a": []}'), ("look", "{}")],
    ),
]


def heard(form: CallForm, *parts: str) -> tuple[str, list[tuple[str, str]], list[Piece]]:
    parser = CallParser(form, NAMES)
    pieces = [piece for part in parts for piece in parser.feed(part)] + parser.close()
    said = ""
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        match piece:
            case Said(text):
                assert text
                assert not calls
                said += text
            case CallBegun(index, name):
                assert index == len(calls)
                calls.append((name, ""))
            case Arguments(index, text):
                assert index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + text)
    return said, calls, pieces


@pytest.mark.parametrize(("form", "text", "said", "calls"), READ)
def test_an_answer_is_read_alike_wherever_it_is_cut_in_two(
    form: CallForm, text: str, said: str, calls: list[tuple[str, str]]
) -> None:
    for cut in range(len(text) + 1):
        assert heard(form, text[:cut], text[cut:])[:2] == (said, calls), cut
    assert heard(form, *text)[:2] == (said, calls)


@untimed
@given(st.sampled_from(READ), st.lists(st.integers(0, 200), max_size=8).map(sorted))
def test_an_answer_is_read_alike_in_any_pieces(
    read: tuple[CallForm, str, str, list[tuple[str, str]]], cuts: list[int]
) -> None:
    form, text, said, calls = read
    parts = [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
    assert heard(form, *parts, text[max([0, *cuts, len(text)]) :])[:2] == (said, calls)


@untimed
@given(st.lists(st.sampled_from(["<tool_call>", "\n", '{"name": "', "note", '", "arg', "{", "x "])))
def test_text_without_a_call_loses_nothing(parts: list[str]) -> None:
    text = "".join(parts) + "."
    assert heard(PLAIN, *parts, ".")[:2] == (text, [])


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("cut", range(1, len("<tool_call>\n{")))
def test_of_a_mark_that_is_cut_off_a_required_call_shows_nothing(cut: int, required: bool) -> None:
    mark = "<tool_call>\n{"[:cut]
    parser = CallParser(PLAIN, NAMES, required=required)
    pieces = parser.feed(mark) + parser.close()
    certain = required or mark.startswith("<tool_call>")
    assert pieces == ([] if certain else [Said(mark)])
    assert not parser.within_call


def test_an_answer_that_ends_within_arguments_was_cut_off() -> None:
    parser = CallParser(PLAIN, NAMES)
    parser.feed('<tool_call>\n{"name": "note", "arguments": {"a')
    assert parser.within_call
    parser.feed('": 1}')
    assert not parser.within_call


def test_pieces_come_as_soon_as_they_are_certain() -> None:
    parser = CallParser(PLAIN, NAMES)
    assert parser.feed("Let me ") == [Said("Let me")]
    assert parser.feed("see <b") == [Said(" see <b")]
    assert parser.feed("\n<tool_call>") == []
    assert parser.feed('\n{"name": "note", "arguments": ') == []
    assert parser.feed("{") == [CallBegun(0, "note"), Arguments(0, "{")]
    assert parser.feed('"a": 1') == [Arguments(0, '"a": 1')]
    assert parser.feed("}}\n</tool_call>") == [Arguments(0, "}")]
    assert parser.close() == []
