"""What an answer may be with tools: grammars, followed as the engine follows them."""

from collections.abc import Mapping
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from tunery.datasets.grammars import flaw_of
from tunery.datasets.tools import (
    ANY_OBJECT,
    PLAIN,
    CallForm,
    Calling,
    Choice,
    Function,
    arguments_object,
    training_functions,
)

END, SPECIAL = 256, 257
LOOK_UP = Function(
    "look_up",
    parameters={
        "type": "object",
        "properties": {"key": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["key"],
        "additionalProperties": False,
    },
)
LOOK = Function("look")
SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "look_up": LOOK_UP.schema(),
    "look": LOOK.schema(),
}
KEY, NONE = PLAIN.written([("look_up", '{"key": "k"}')]), PLAIN.written([("look", "{}")])
BOTH = PLAIN.written([("look_up", '{"key": "k", "n": 2}'), ("look", "{}")])
WRONG = [
    PLAIN.written([("other", "{}")]),
    PLAIN.written([("look_up", "{}")]),
    PLAIN.written([("look_up", '{"key": 5}')]),
    PLAIN.written([("look_up", '{"key": "k", "x": 1}')]),
    PLAIN.written([("look", '{"a": 1}')]),
    f"{KEY} more",
    f"{KEY}\n{KEY}\n",
    KEY[:-3],
    "<tool_call>",
    "<tool_call> text",
]


class _Bytes:
    """A token a byte, an end, and a special token."""

    eos_token_id = END
    bos_token_id = None
    tokens = [*(bytes([byte]) for byte in range(256)), b"<end>", b"<m>"]  # noqa: RUF012
    special_token_ids = (END, SPECIAL)

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


TOKENIZER = LLTokenizer(TokenizerWrapper(_Bytes()))


def takes(grammar: str, answer: str, special: str = "") -> bool:
    """Return whether an answer may be made and end there; `special` stands for the token."""
    matcher = LLMatcher(TOKENIZER, grammar, log_level=0)
    ids: list[int] = []
    for number, part in enumerate(answer.split(special) if special else [answer]):
        ids += [SPECIAL] * (number > 0) + list(part.encode())
    for one in ids:
        if not matcher.consume_token(one):
            return False
    return bool(matcher.is_accepting())


def grammar(choice: Choice, *, several: bool = True, form: CallForm = PLAIN, **more: Any) -> str:
    calling = Calling((LOOK_UP, LOOK), ("look_up", "look"), choice, several)
    text = form.grammar(calling, SCHEMAS, **more)
    if not form.special:  # whose ids the check does not know
        assert flaw_of(text) is None
    return text


TEXTS = ["", "Hello, <tool_call and < é 😀\n", " ", '{"name": "look"}']


@pytest.mark.parametrize("several", [True, False])
def test_a_free_answer_is_text_or_calls_or_both(several: bool) -> None:
    free = grammar("auto", several=several)
    for answer in [*TEXTS, KEY, NONE, f"So:\n{KEY}"]:
        assert takes(free, answer), answer
    assert takes(free, BOTH) == several
    for answer in WRONG:
        assert not takes(free, answer), answer


@pytest.mark.parametrize("several", [True, False])
def test_an_answer_that_has_to_call_does(several: bool) -> None:
    needed = grammar("required", several=several)
    assert takes(needed, KEY)
    assert takes(needed, NONE)
    assert takes(needed, BOTH) == several
    for answer in [*TEXTS, f"So:\n{KEY}", *WRONG]:
        assert not takes(needed, answer), answer


def test_an_answer_that_may_not_call_does_not() -> None:
    text = grammar("none")
    for answer in TEXTS:
        assert takes(text, answer), answer
    for answer in [KEY, BOTH, *WRONG]:
        assert not takes(text, answer), answer


def test_some_functions_may_be_called_of_those_that_are_told_of() -> None:
    calling = Calling((LOOK_UP, LOOK), ("look",), "auto")
    text = PLAIN.grammar(calling, SCHEMAS)
    assert takes(text, NONE)
    assert not takes(text, KEY)


def test_an_answer_of_a_form_of_its_own_follows_that_or_calls() -> None:
    answer = 'start: %json {"type": "integer"}'
    free = grammar("auto", answer=answer)
    assert [takes(free, one) for one in ("5", KEY, "five", f"5{KEY}", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not takes(grammar("required", answer=answer), "5")
    assert takes(grammar("none", answer=answer), "5")
    assert not takes(grammar("none", answer=answer), KEY)


def test_calls_without_marks_begin_an_answer() -> None:
    bare = CallForm('{"name": "', '", "parameters": ', None, "}", after_text=False)
    call = bare.written([("look", "{}")])
    free = grammar("auto", form=bare)
    for answer in ["", "text", f"So: {call}", '{"nam', call]:
        assert takes(free, answer), answer
    for answer in [f"{call} text", '{"name": "Ann"}', '{"name": "']:
        assert not takes(free, answer), answer
    assert not takes(grammar("none", form=bare), call)


def test_calls_that_begin_with_a_special_token() -> None:
    form = CallForm(
        '<m>[{"name": "', '", "arguments": ', '}, {"name": "', "}]", special=(("<m>", SPECIAL),)
    )
    call = form.written([("look", "{}"), ("look", "{}")])
    free = grammar("auto", form=form)
    assert takes(free, call, "<m>")
    assert takes(free, f"So: {call}", "<m>")
    assert takes(free, "text [1]")
    assert not takes(free, call.removeprefix("<m>"))
    assert not takes(grammar("none", form=form), call, "<m>")


def test_arguments_are_held_to_a_schema_where_that_is_asked_for() -> None:
    for strict, choice, held in (
        (False, "auto", False),
        (None, "auto", True),
        (True, "auto", True),
        (False, "required", True),
    ):
        function = Function("f", strict=strict)
        assert Calling((function,), ("f",), choice).follows_schema(function) == held  # type: ignore[arg-type]
    calling = Calling((LOOK,), ("look",), "auto")
    assert takes(
        PLAIN.grammar(calling, {"look": ANY_OBJECT}), PLAIN.written([("look", '{"a": [1, {}]}')])
    )


def test_a_schema_is_that_of_an_object() -> None:
    assert Function("f").schema() == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    assert Function("f", parameters={}).schema() == {"type": "object"}
    assert Function("f", parameters={"type": "object", "x": 1}).schema()["x"] == 1


def test_arguments_are_an_object_or_nothing() -> None:
    assert arguments_object('{"a": [1, 2.5, "é"]}') == {"a": [1, 2.5, "é"]}
    deep = '{"a": ' * 100_000
    for text in ("", "[]", "5", "{", '{"a": NaN}', '{"a": "\\ud800"}', '{"a": 1} x', deep):
        assert arguments_object(text) is None


def test_a_lines_functions_are_those_of_either_form() -> None:
    defined = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    expected = (Function("f", "d", {"type": "object"}, strict=True),)
    assert training_functions({"functions": [defined]}) == expected
    tool = {"type": "function", "function": defined}
    assert training_functions({"tools": [tool]}) == expected
    assert training_functions({"tools": None}) == ()
    told = {key: value for key, value in defined.items() if key != "strict"}
    assert expected[0].as_tool() == {"type": "function", "function": told}
