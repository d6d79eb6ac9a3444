"""Every format, and files as they really come."""

import csv
import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.preparing import json_lines, parquet, read, rows, table, xlsx
from support.properties import untimed
from tunery.datasets.preparing import text_sources
from tunery.datasets.preparing.items import Unreadable
from tunery.datasets.preparing.sources import open_source

ROWS = rows(5)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text("abc", max_size=3), JSON, max_size=4), max_size=6)


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.csv", table(ROWS), "CSV"),
        ("a.CSV", table(ROWS, ";"), "CSV"),
        ("a.tsv", table(ROWS, "\t"), "TSV"),
        ("a.jsonl", json_lines(ROWS), "JSON Lines"),
        ("a.ndjson", json_lines(ROWS), "JSON Lines"),
        ("lines.json", json_lines(ROWS), "JSON Lines"),
        ("a.json", json.dumps(ROWS).encode(), "JSON"),
        ("b.json", json.dumps({"version": 1, "data": ROWS}, indent=1).encode(), "JSON"),
    ],
)
def test_each_format_of_text_gives_the_same_rows(
    tmp_path: Path, name: str, data: bytes, kind: str
) -> None:
    path = put(tmp_path, name, data)
    assert open_source(path).kind == kind
    assert [value for _, value, _ in read(path)] == ROWS


def test_workbooks_and_parquet_give_the_same_rows_too(tmp_path: Path) -> None:
    book = xlsx(tmp_path / "a.xlsx", [list(ROWS[0]), *[list(row.values()) for row in ROWS]])
    assert [value for _, value, _ in read(book)] == ROWS
    assert [number for number, *_ in read(book)] == [2, 3, 4, 5, 6]
    file = parquet(tmp_path / "a.parquet", ROWS)
    assert [(number, value) for number, value, _ in read(file)] == list(enumerate(ROWS, 1))
    nested = [{"messages": [{"role": "user", "content": "a"}, {"role": "tool", "id": "x"}]}]
    # A struct has every field in every row: those that are null were not there.
    assert read(parquet(tmp_path / "b.parquet", nested))[0][1] == nested[0]


def test_cells_are_read_out_as_people_see_them(tmp_path: Path) -> None:
    header = ["whole", "part", "yes", "day", "none", "formula"]
    book = xlsx(tmp_path / "a.xlsx", [header, [3.0, 1.5, True, date(2026, 11, 27), None, "=A2*2"]])
    ((_, value, _),) = read(book)
    # openpyxl saves no value with a formula, as spreadsheets do: it was never computed.
    assert value == dict(zip(header, ["3", "1.5", "TRUE", "2026-11-27", "", ""], strict=True))


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_tells_the_encoding_and_is_no_text(
    tmp_path: Path, mark: str, end: str
) -> None:
    text = f'q,a{end}"é, ""x""",b{end}{end}c,d{end}'
    path = put(tmp_path, "a.csv", text.encode(mark))
    assert read(path) == [(2, {"q": 'é, "x"', "a": "b"}, None), (4, {"q": "c", "a": "d"}, None)]
    lines = end.join(['{"q": "é"}', "", '{"q": "b"}'])
    path = put(tmp_path, "a.jsonl", lines.encode(mark))
    assert read(path) == [(1, {"q": "é"}, None), (3, {"q": "b"}, None)]


def test_lines_that_cannot_be_read_are_named_and_the_others_are(tmp_path: Path) -> None:
    data = b'{"a": 1}\nnot json\n\n[1]\n{"a": "\xff"}\n{"a": 1, "a": 2}\n{"a": NaN}\n{"a": 3}'
    found = read(put(tmp_path, "a.jsonl", data))
    assert [number for number, _, problem in found if problem] == [2, 4, 5, 6, 7]
    assert [value for _, value, problem in found if problem is None] == [{"a": 1}, {"a": 3}]
    found = read(put(tmp_path, "a.csv", b"q,a\nx,y\n\xff,z\nu,v,w\ns,t\n"))
    problems = {number: problem for number, _, problem in found if problem}
    assert list(problems) == [3, 4]
    assert "--encoding" in (problems[3] or "")
    assert "3 cells where the header has 2" in (problems[4] or "")


def test_a_file_in_another_encoding_is_read_as_told(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "q,a\nüber,ß\n".encode("cp1252"))
    source = open_source(path, encoding="cp1252")
    (item,) = source.read(lambda done: None)
    assert item.value == {"q": "über", "a": "ß"}
    with pytest.raises(Unreadable, match="needed one that Python knows"):
        open_source(path, encoding="klingon")


def test_rows_of_many_lines_are_named_by_their_first(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", b'q,a\n"one\ntwo\nthree",x\nfour,y\n')
    assert [(number, value) for number, value, _ in read(path)] == [
        (2, {"q": "one\ntwo\nthree", "a": "x"}),
        (5, {"q": "four", "a": "y"}),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n \n", "is empty"),
        ("a.csv", b'q,a\n"' + b"x" * (9 << 20), "line 2: .*never closed"),
        ("a.json", b"[1", "the end of the file after item 1"),
        ("a.json", b'[{"a": 1} {"b": 2}]', "after item 1; needed ',' or ']'"),
        ("a.json", b'[{"a": 1}, {"b": ]', "item 2: not JSON"),
        ("a.json", b"[" + b'{"a":' * 100_000, "item 1: "),
        ("a.json", b'"text"', "a JSON array or object is needed"),
        ("a.xlsx", b"PK\x03\x04 and no more", "is not an XLSX file"),
        ("a.parquet", b"PAR1 and no more", "is not a Parquet file"),
        ("a.pdf", b"%PDF", "no ending that is known"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    path = put(tmp_path, name, data)
    with pytest.raises(Unreadable, match=message) as caught:
        read(path)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_what_json_does_not_have_is_a_fault_of_its_item_alone(tmp_path: Path) -> None:
    data = b'[{"a": NaN}, 5, {"a": 1, "a": 1}, {"a": "\\ud800"}, {"a": "\xff"}, {"a": 1}]'
    found = read(put(tmp_path, "a.json", data))
    assert [number for number, _, problem in found if problem] == [1, 2, 3, 4, 5]
    assert found[5] == (6, {"a": 1}, None)


@given(OBJECTS, st.integers(1, 9), st.sampled_from([None, 1]))
@untimed
def test_an_array_is_read_as_a_whole_one_would_be(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[dict[str, Any]],
    chunk: int,
    indent: int | None,
) -> None:
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_bytes(json.dumps(values, ensure_ascii=False, indent=indent).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_sources, "_CHUNK_BYTES", chunk)  # so that items end in other chunks
        found = [value for _, value, _ in read(path)]
    assert found == values


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), st.sampled_from([",", ";", "\t"]))
@untimed
def test_a_table_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], delimiter: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["question", "answer"])
    writer.writerows(cells)
    path = tmp_path_factory.mktemp("table") / "a.csv"
    path.write_bytes(text.getvalue().encode())
    found = [(value["question"], value["answer"]) for _, value, _ in read(path)]
    assert found == [pair for pair in cells if any(cell.strip() for cell in pair)]


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "json", "jsonl", "txt"]))
@untimed
def test_no_bytes_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"a.{ending}"
    path.write_bytes(data)
    try:
        found = read(path)
    except Unreadable:
        return
    assert all((value is None) != (problem is None) for _, value, problem in found)
