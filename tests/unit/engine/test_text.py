"""Text from tokens, piece by piece."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunery.datasets.tokenizer import TextTokenizer
from tunery.engine.text import TextStream

# The byte of each id: GPT-2's alphabet, sorted. Bytes that print stand for themselves.
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_SHIFTED = [byte for byte in range(256) if byte not in _PRINTED]
BYTES = [*_PRINTED, *_SHIFTED]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> TextTokenizer:
    return TextTokenizer(tiny_model)


def _feed(
    tokenizer: TextTokenizer, ids: list[int], stop: tuple[str, ...] = ()
) -> tuple[list[str], bool]:
    """Return the pieces that the tokens give, the last one from closing, and whether it stopped."""
    stream = TextStream(tokenizer, stop)
    pieces = []
    for token in ids:
        pieces.append(stream.add(token))
        if stream.stopped:
            return pieces, True
    pieces.append(stream.close())
    return pieces, stream.stopped


def test_characters_come_whole_and_at_once(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.text_ids("aé€😀b")
    assert len(ids) == 1 + 2 + 3 + 4 + 1
    pieces, stopped = _feed(tokenizer, ids)
    assert pieces == ["a", "", "é", "", "", "€", "", "", "", "😀", "b", ""]
    assert not stopped


def test_a_character_cut_by_the_end_is_shown_as_such(tokenizer: TextTokenizer) -> None:
    pieces, _ = _feed(tokenizer, tokenizer.text_ids("a€")[:3])
    assert pieces == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_replacement_character_of_the_text_itself_is_kept(tokenizer: TextTokenizer) -> None:
    text = "x\N{REPLACEMENT CHARACTER}y\N{REPLACEMENT CHARACTER}"
    assert "".join(_feed(tokenizer, tokenizer.text_ids(text))[0]) == text


@pytest.mark.parametrize(
    ("text", "stop", "pieces", "stopped"),
    [
        ("abXYcd", ("XY",), ["a", "b", "", ""], True),
        ("abX", ("XY",), ["a", "b", "", "X"], False),  # held back, then flushed
        ("XXY", ("XY",), ["", "X", ""], True),
        ("aXbXY", ("XY",), ["a", "", "Xb", "", ""], True),
        ("ab", ("a",), [""], True),
        ("aab!", ("aaa", "b!"), ["", "", "aa", ""], True),
        ("a€b", ("€",), ["a", "", "", ""], True),
        ("a€b", ("€b",), ["a", "", "", "", ""], True),
        ("ab", (), ["a", "b", ""], False),
    ],
)
def test_stop_strings_across_tokens(
    tokenizer: TextTokenizer, text: str, stop: tuple[str, ...], pieces: list[str], stopped: bool
) -> None:
    assert _feed(tokenizer, tokenizer.text_ids(text), stop) == (pieces, stopped)


def test_a_stop_string_that_only_closing_makes_certain_is_cut(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.text_ids("a€")[:3]
    assert _feed(tokenizer, ids, ("\N{REPLACEMENT CHARACTER}",)) == (["a", "", "", ""], True)


@given(st.lists(st.integers(0, 257), max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_pieces_of_any_tokens_are_the_whole_text(
    tokenizer: TextTokenizer, ids: list[int]
) -> None:
    pieces, stopped = _feed(tokenizer, ids)
    data = bytes(BYTES[token] for token in ids if token < 256)
    assert "".join(pieces) == data.decode("utf-8", "replace")
    assert not stopped


@given(
    text=st.text(st.sampled_from("ab€😀"), max_size=20),
    stop=st.lists(st.text(st.sampled_from("ab€"), min_size=1, max_size=4), max_size=3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_text_ends_before_the_stop_string_that_is_complete_first(
    tokenizer: TextTokenizer, text: str, stop: list[str]
) -> None:
    pieces, stopped = _feed(tokenizer, tokenizer.text_ids(text), tuple(stop))
    wanted = text
    for end in range(1, len(text) + 1):
        places = [text[:end].find(s) for s in stop if s in text[:end]]
        if places:
            wanted = text[: min(places)]
            break
    assert "".join(pieces) == wanted
    assert stopped == any(s in text for s in stop)
