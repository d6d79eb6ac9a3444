"""An answer as it is heard: its text, its calls, and the tokens that its text is made of."""

from tunery.datasets.heard import Heard, Reading
from tunery.datasets.tool_calls import Arguments, CallBegun, Said
from tunery.datasets.tools import PLAIN
from tunery.domain.ports.engine import Delta, TokenLogprob

READING = Reading(PLAIN, ("f",))
CALL = PLAIN.written([("f", '{"a": 1}')])


def token(text: str) -> TokenLogprob:
    return TokenLogprob(text, text.encode(), -0.5, ())


def test_without_tools_all_is_text_and_is_told_as_it_comes() -> None:
    heard = Heard(None)
    special = TokenLogprob("<e>", b"", -1.0, ())
    assert heard.take(Delta(CALL, 1, None, (token("x"),))) == ([Said(CALL)], [token("x")])
    assert heard.take(Delta("", 2, "stop", (special,))) == ([], [special])
    assert (heard.text, heard.calls, heard.finish_reason) == (CALL, [], "stop")
    assert heard.logprobs == [token("x"), special]


def test_calls_are_kept_apart_from_the_text_and_have_ids() -> None:
    heard = Heard(READING)
    assert heard.take(Delta("So:", 1)) == ([Said("So:")], [])
    pieces, _ = heard.take(Delta(f"\n{CALL}\n{CALL}", 9, "stop"))
    assert pieces == [
        CallBegun(0, "f"),
        Arguments(0, '{"a": 1}'),
        CallBegun(1, "f"),
        Arguments(1, '{"a": 1}'),
    ]
    assert heard.text == "So:"
    assert [(call.name, call.arguments) for call in heard.calls] == [("f", '{"a": 1}')] * 2
    assert len({call.id for call in heard.calls}) == 2
    assert all(call.id.startswith("call_") for call in heard.calls)


def test_what_was_held_back_comes_with_the_end() -> None:
    heard = Heard(READING)
    assert heard.take(Delta("a <tool", 1)) == ([Said("a")], [])
    assert heard.take(Delta("", 2, "length")) == ([Said(" <tool")], [])
    assert (heard.text, heard.finish_reason) == ("a <tool", "length")


def test_told_are_the_tokens_of_the_text_once_it_is_certain() -> None:
    heard = Heard(READING)
    first, space, marks, rest = token("é"), token(" "), token("<tool_"), token("x")
    assert heard.take(Delta("é ", 2, None, (first, space)))[1] == [first]
    assert heard.take(Delta("<tool_", 3, None, (marks,)))[1] == []
    assert heard.take(Delta("x", 4, None, (rest,)))[1] == [space, marks, rest]
    assert heard.logprobs == [first, space, marks, rest]
    called = Heard(READING)
    assert called.take(Delta(CALL, 1, "stop", tuple(map(token, CALL))))[1] == []
