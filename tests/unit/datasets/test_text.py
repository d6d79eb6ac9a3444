"""Text from tokens, piece by piece."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.text_model import make_merging_tokenizer, write_text_model
from tunery.datasets.text import TextStream
from tunery.datasets.tokenizer import TextTokenizer

# The byte of each id: GPT-2's alphabet, sorted. Bytes that print stand for themselves.
_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_SHIFTED = [byte for byte in range(256) if byte not in _PRINTED]
BYTES = [*_PRINTED, *_SHIFTED]
_IDS_OF_MANY = [BYTES.index(byte) for byte in "aAb€😀\ufffd".encode()]


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


def _delivered(tokenizer: TextTokenizer, ids: list[int], stop: tuple[str, ...]) -> list[int]:
    """Return the count of tokens given out after each token, and last after closing."""
    stream = TextStream(tokenizer, stop)
    counts = []
    for token in ids:
        stream.add(token)
        counts.append(stream.delivered)
        if stream.stopped:
            return counts
    stream.close()
    return [*counts, stream.delivered]


@pytest.mark.parametrize(
    ("text", "stop", "counts"),
    [
        ("ab", (), [1, 2, 2]),
        ("a€b", (), [1, 1, 1, 4, 5, 5]),  # a character's tokens come with its last byte
        ("abXYcd", ("XY",), [1, 2, 2, 2]),  # the stop string's own tokens never come
        ("abX", ("XY",), [1, 2, 2, 3]),  # held back, then flushed
        ("XXY", ("XY",), [0, 1, 1]),
        ("aXbXY", ("XY",), [1, 1, 3, 3, 3]),
        ("ab", ("a",), [0]),
    ],
)
def test_tokens_are_delivered_with_their_text(
    tokenizer: TextTokenizer, text: str, stop: tuple[str, ...], counts: list[int]
) -> None:
    assert _delivered(tokenizer, tokenizer.text_ids(text), stop) == counts


def test_the_tokens_of_a_broken_character_are_delivered_and_not_the_stop_after_it(
    tokenizer: TextTokenizer,
) -> None:
    ids = [*tokenizer.text_ids("€")[:2], *tokenizer.text_ids("AB")]
    assert _feed(tokenizer, ids, ("A",)) == (["", "", "\N{REPLACEMENT CHARACTER}"], True)
    assert _delivered(tokenizer, ids, ("A",)) == [0, 0, 2]
    assert _delivered(tokenizer, ids[:2], ()) == [0, 0, 2]


def test_a_token_that_a_stop_string_cuts_in_its_middle_is_delivered(tmp_path: Path) -> None:
    merging = TextTokenizer(write_text_model(tmp_path, make_merging_tokenizer()))
    ids = merging.text_ids("What is the")
    assert [merging.token_id_text(one) for one in ids[-2:]] == [" is", " the"]
    stream = TextStream(merging, ("s t",))
    pieces = [stream.add(token) for token in ids]
    assert "".join(pieces) == "What i"
    assert stream.stopped
    assert stream.delivered == len(ids) - 1


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


def _character_ends(data: bytes) -> list[int]:
    """Return how many bytes there are up to the end of each character, broken ones included."""
    ends = [0]
    while ends[-1] < len(data):
        rest = data[ends[-1] :]
        try:
            good, broken = rest.decode(), []
        except UnicodeDecodeError as error:
            good, broken = rest[: error.start].decode(), [error.end - error.start]
        for size in [*(len(character.encode()) for character in good), *broken]:
            ends.append(ends[-1] + size)
    return ends[1:]


@given(
    ids=st.lists(st.sampled_from([*range(60, 68), *_IDS_OF_MANY, 256]), max_size=25),
    stop=st.lists(st.text(st.sampled_from("ab€\ufffd"), min_size=1, max_size=3), max_size=2),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_delivered_tokens_are_those_that_the_text_needs(
    tokenizer: TextTokenizer, ids: list[int], stop: list[str]
) -> None:
    stream = TextStream(tokenizer, tuple(stop))
    text, before = "", 0
    for token in ids:
        text += stream.add(token)
        assert before <= stream.delivered <= len(ids)
        before = stream.delivered
        if stream.stopped:
            break
        # Only tokens whose text is out: what they decode to is the text's beginning.
        assert text.startswith(tokenizer.decode(ids[:before]))
    else:
        text += stream.close()
    if stream.stopped:
        assert tokenizer.decode(ids[: stream.delivered]).startswith(text)
        if 256 not in ids:
            data = bytes(BYTES[token] for token in ids)
            assert stream.delivered == [0, *_character_ends(data)][len(text)]
    else:
        assert stream.delivered == len(ids)
        assert tokenizer.decode(ids) == text
