"""How alike two answers are: each number worked out by hand."""

import pytest

from tunery.datasets.likeness import Likeness, answer_text, likeness, token_f1


def test_equal_answers_are_alike_in_every_way() -> None:
    assert likeness("Yes.", "Yes.") == Likeness(True, True, None, 1.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Yes.", "yes"),
        ("two  words\n", "two words"),
        ('"quoted"', "Quoted!"),
        ("ﬁne", "fine"),  # a ligature
        ("STRASSE", "straße"),
    ],
)
def test_form_that_does_not_matter_is_normalized_away(old: str, new: str) -> None:
    found = likeness(old, new)
    assert (found.exact, found.normalized, found.token_f1) == (False, True, 1.0)


@pytest.mark.parametrize(
    ("old", "new", "f1"),
    [
        # shared 2; precision 2/4, recall 2/3: 2 * 2 / (3 + 4)
        ("the red house", "the big red car", 4 / 7),
        # `a` counts twice there and once here: shared 1, 2 * 1 / (2 + 1)
        ("a a", "a", 2 / 3),
        ("a-b", "a b", 2 * 2 / (3 + 2)),  # the sign is a token of its own
        ("one", "two", 0.0),
        ("", "two", 0.0),
        ("", "...", 1.0),  # nothing is left of either
    ],
)
def test_f1_is_over_words_as_often_as_they_stand_there(old: str, new: str, f1: float) -> None:
    assert token_f1(old, new) == pytest.approx(f1)
    assert token_f1(new, old) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("old", "new", "equal"),
    [
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1.0}', True),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": null}', "{}", False),
        ("[1, 2]", "[2, 1]", False),
        ("[[1], [2, {}]]", "[[1],[2,{}]]", True),
        ('{"a": 1}', "a is 1", False),
        ("1", "1", None),  # a number alone is no form that was asked for
        ("a is 1", '{"a": 1}', None),
    ],
)
def test_json_is_equal_by_value(old: str, new: str, equal: bool | None) -> None:
    assert likeness(old, new).json_equal is equal


def test_calls_are_alike_whatever_their_ids_and_spaces() -> None:
    def called(call_id: str, arguments: str) -> str:
        function = {"name": "look_up", "arguments": arguments}
        calls = [{"id": call_id, "type": "function", "function": function}]
        return answer_text({"role": "assistant", "content": None, "tool_calls": calls})

    old, new = called("call_1", '{"id": 7, "deep": true}'), called("call_2", '{"deep":true,"id":7}')
    assert old == new
    assert likeness(old, called("call_3", '{"id": 8, "deep": true}')).json_equal is False
    assert '"arguments":"{not json"' in called("call_1", "{not json")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "Hi"}, "Hi"),
        ({"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, "Hi"),
        ({"content": None, "refusal": "No."}, "No."),
        (
            {"content": "", "function_call": {"name": "f", "arguments": "{}"}},
            '[{"arguments":{},"name":"f"}]',
        ),
        (
            {"content": "So:", "tool_calls": [{"function": {"name": "f", "arguments": "1"}}]},
            '{"calls":[{"arguments":1,"name":"f"}],"content":"So:"}',
        ),
    ],
)
def test_an_answers_text_is_what_it_says_and_calls(message: dict[str, object], text: str) -> None:
    assert answer_text(message) == text
