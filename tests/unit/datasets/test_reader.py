"""Lines of a JSONL file, whatever the cuts of its chunks."""

import json
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.datasets.reader import (
    MAX_LINE_BYTES,
    BadLine,
    Line,
    LineSplitter,
    hint,
    lines,
    parse,
    parse_unique,
)

BOM = b"\xef\xbb\xbf"
MIXED = BOM + '{"a": "é€😀"}\r\n\n  \t\r\n{"b": 2}\n\r\n\n{"c": 3}'.encode()
MIXED_LINES = [
    Line(1, '{"a": "é€😀"}\r'.encode()),
    Line(4, b'{"b": 2}'),
    Line(7, b'{"c": 3}'),
]


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    """Yield `data` cut at `places`; equal places give empty chunks."""
    edges = [0, *sorted(places), len(data)]
    return (data[a:b] for a, b in pairwise(edges))


def by_hand(data: bytes) -> list[Line]:
    """Return the lines of a file that is held whole."""
    pieces = data.removeprefix(BOM).split(b"\n")
    return [Line(number, piece) for number, piece in enumerate(pieces, 1) if piece.strip()]


@pytest.mark.parametrize("place", range(len(MIXED) + 1))
def test_a_cut_at_any_byte_changes_nothing(place: int) -> None:
    assert list(lines(cut(MIXED, [place]))) == MIXED_LINES


def test_single_bytes_give_the_same_lines() -> None:
    assert list(lines(bytes([byte]) for byte in MIXED)) == MIXED_LINES
    assert [parse(line) for line in lines([MIXED])] == [{"a": "é€😀"}, {"b": 2}, {"c": 3}]


@untimed
@given(
    st.lists(st.sampled_from([b"{}", b"\n", b"\r\n", b" ", b"ab", BOM, b"\xff", b"\0"])).map(
        b"".join
    ),
    st.data(),
)
def test_any_chunking_gives_the_lines_of_the_whole(data: bytes, draw: st.DataObject) -> None:
    places = draw.draw(st.lists(st.integers(0, len(data)), max_size=8))
    assert list(lines(cut(data, places))) == by_hand(data)


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n\r\n", BOM, BOM + b"\n", b" \t\n \n"])
def test_a_file_of_blank_lines_has_no_lines(data: bytes) -> None:
    assert list(lines([data])) == []


def test_a_mark_is_taken_off_the_first_line_only() -> None:
    assert [line.data for line in lines([BOM + b"{}\n" + BOM + b"{}"])] == [b"{}", BOM + b"{}"]


def test_a_line_at_the_cap_is_kept_and_one_byte_more_is_not() -> None:
    full = b"x" * MAX_LINE_BYTES
    assert list(lines([full, b"\n{}\n", full, b"x", b"\n{}\n", b"x", full])) == [
        Line(1, full),
        Line(2, b"{}"),
        Line(3, None),
        Line(4, b"{}"),
        Line(5, None),
    ]


def test_a_line_over_the_cap_is_named_and_its_bytes_are_not_kept() -> None:
    splitter = LineSplitter()
    chunk = b"x" * (1 << 20)
    tracemalloc.start()
    try:
        for _ in range(8 * MAX_LINE_BYTES // len(chunk)):  # 8 times the cap
            assert list(splitter.feed(chunk)) == []
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * len(chunk)
    # A growing buffer may be copied once as it grows: twice the cap, not eight times.
    assert peak < 3 * MAX_LINE_BYTES
    found = [*splitter.feed(b'\n{"after": 1}'), *splitter.close()]
    assert found == [Line(1, None), Line(2, b'{"after": 1}')]
    with pytest.raises(BadLine, match="longer than 8 MiB"):
        parse(found[0])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": Infinity}', "not JSON"),
        (b'{"a": 1e999}', "not JSON"),
        (b'{"a": "\\ud800"}', "not JSON"),  # a lone surrogate
        (b'{"a": "\xed\xa0\x80"}', "not JSON"),  # the same, as bytes
        (b'{"a": "\xff"}', "not JSON"),
        (b'{"a": "\xc3"}', "not JSON"),  # half a character
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b'"text"', "got a string"),
        (b"[{}]", "got a list"),
        (b"true", "got a boolean"),
        (b"null", "got null"),
        (b"17", "got a number"),
        (b"1.5", "got a number"),
    ],
)
def test_what_is_no_json_object_is_a_bad_line(data: bytes, says: str) -> None:
    with pytest.raises(BadLine, match=says):
        parse(Line(1, data))


def test_an_error_is_placed_by_characters_not_bytes() -> None:
    with pytest.raises(BadLine, match=r"\(character 7\)$"):
        parse(Line(1, '{"é": x}'.encode()))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"12345678", "12345678"),
        (b"123456789", "12345678..."),
        (b"  a \r", "a"),
        (b"\xff{}", "�{}"),
        (None, ""),
    ],
)
def test_a_hint_shows_at_most_eight_characters(data: bytes | None, expected: str) -> None:
    assert hint(Line(1, data)) == expected


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": 1, "a": 1}', "a"),
        (b'{"x": 0, "a" :1, "b": 2, "a"\t: 3}', "a"),
        (b'{"m": [{"b": {}}, {"role": 1, "c": 0, "role": 2}]}', "role"),
        (b'{"a": {"b": 1, "b": 2}, "a": 3}', "b"),
        (b'{"a": 1, "\\u0061": 2}', "a"),  # two spellings of one key
        (b'{"\\"": 1, "\\u0022": 2}', '"'),
        ('{"é": 1, "\\u00e9": 2}'.encode(), "é"),
        (b'{"": 1, "": 2}', ""),
        (b' \t{"a": 1, "a": 2} \r', "a"),
        (b'{"%s": 1, "%s": 2}' % (b"k" * 41, b"k" * 41), "k" * 37 + "..."),
    ],
)
def test_a_key_given_twice_is_a_bad_line_that_names_it(data: bytes, key: str) -> None:
    with pytest.raises(BadLine) as refused:
        parse_unique(Line(1, data))
    assert str(refused.value) == f"the key {key!r} stands twice in one dictionary"
    assert parse(Line(1, data))  # what the plain reading does not tell


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1, "A": 2, "b": {"a": 3}, "c": [{"a": 4}, {"a": 5}]}',
        b'{"a": "a\\": 1, \\"a\\": 2"}',  # only in a text
        b'{"a": "\\u0022: \\u003a", "b": ""}',
        b' {"a": 1e-9, "b": -0, "c": 12345678901234567890, "d": 1.5} ',
        b'{"n": %s}' % (b"9" * 300),
        '{"é": 1, "e\u0301": 2}'.encode(),  # two keys that look alike
    ],
)
def test_keys_that_differ_or_stand_apart_are_no_doubles(data: bytes) -> None:
    assert parse_unique(Line(1, data)) == parse(Line(1, data))


def test_a_line_as_deep_as_the_parser_goes_is_read_or_refused_but_breaks_nothing() -> None:
    refused = 0
    for depth in range(500, 1100, 10):
        line = Line(1, b'{"a":' * depth + b"1" + b"}" * depth)
        try:
            assert parse_unique(line) == parse(line)
        except BadLine:
            refused += 1
        else:
            assert not refused
    assert refused


@untimed
@given(st.lists(st.sampled_from(["a", "b", '"', "\\", ":", "é"]), max_size=6), st.booleans())
def test_any_keys_are_doubles_exactly_where_two_are_equal(keys: list[str], nested: bool) -> None:
    data = "{" + ", ".join(f"{json.dumps(key)}: 1" for key in keys) + "}"
    line = Line(1, (f'{{"in": [{data}]}}' if nested else data).encode())
    if len(set(keys)) == len(keys):
        assert parse_unique(line) == parse(line)
    else:
        with pytest.raises(BadLine, match="twice"):
            parse_unique(line)


KEYS = st.sampled_from(["role", "content", "messages", "name", "a"])
TEXTS = st.sampled_from(
    ['"x"', '"role"', '"\\""', '"\\\\"', '"a:b"', "5", "{}", '["a"]', '{"a": 1}']
)
PAIRS = st.tuples(KEYS, TEXTS).map(lambda pair: f'"{pair[0]}": {pair[1]}')
MESSAGES = st.lists(PAIRS, max_size=4).map(lambda pairs: "{" + ", ".join(pairs) + "}")


@given(st.lists(MESSAGES | TEXTS, max_size=3), st.lists(PAIRS, max_size=1))
@untimed
def test_a_key_that_stands_twice_is_found_in_any_line(messages: list[str], more: list[str]) -> None:
    text = "{" + ", ".join([f'"messages": [{", ".join(messages)}]', *more]) + "}"

    def twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found.append(len(dict(pairs)) != len(pairs))
        return dict(pairs)

    found: list[bool] = []
    json.loads(text, object_pairs_hook=twice)
    if any(found):
        with pytest.raises(BadLine, match="stands twice"):
            parse_unique(Line(1, text.encode()))
    else:
        assert parse_unique(Line(1, text.encode())) == json.loads(text)
