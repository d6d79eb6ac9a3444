"""The report's page: well formed, whole in itself, and nothing of the file is taken for markup."""

import datetime
import re
from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from support.preparing import chat, chats, json_lines, prepared, surveyed
from support.properties import untimed
from tunery.datasets.preparing.page import page_of
from tunery.datasets.preparing.plots import histogram, ranking
from tunery.datasets.preparing.report import report_of

DAY = datetime.date(2026, 11, 27)
EVIL = "<script>alert(1)</script>\"'&amp;{{ 7 * 7 }}]]>\x00\x1b"


def page(folder: Path, lines: list[object], name: str = "a.jsonl") -> str:
    path = folder / name
    path.write_bytes(json_lines(lines))
    found = surveyed(path)
    decision, *_ = prepared(found, folder)
    return page_of(report_of(found, decision, None, ["duplicate_lines"]), DAY)


def tree(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))  # noqa: S314 - our own


def test_a_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    text = page(tmp_path, [*chats(30), chats(30)[0]])
    found = tree(text)
    assert len(found.findall(".//svg")) == 4  # three spreads, and the languages
    assert not re.search(r"(?:src|href)=|url\(", text)
    words = "".join(found.itertext())
    assert "like line 1" in words
    assert "Done: Remove 1 exact copy." in words


def test_what_a_file_holds_is_shown_and_never_obeyed(tmp_path: Path) -> None:
    labels = [chat(f"Question number {n}, of some length", EVIL) for n in range(30)]
    roles = {"messages": [{"role": EVIL, "content": "x"}, {"role": "assistant", "content": "y"}]}
    text = page(tmp_path, [*labels, roles], f"{EVIL[:25].replace('/', '')}.jsonl")
    found = tree(text)
    assert found.findall(".//script") == []
    assert "<script" not in text
    words = "".join(found.itertext())
    assert "<script>alert(1)" in words, "it is shown as it is"
    assert "{{ 7 * 7 }}" in words or "49" not in words
    assert "\x1b" not in text
    assert "\x00" not in text


@given(st.lists(st.tuples(st.text(), st.integers(0, 9)), max_size=30))
@untimed
def test_any_name_makes_a_well_formed_plot(counts: list[tuple[str, int]]) -> None:
    text = ranking("of <anything>", counts)
    if counts:
        rows = ElementTree.fromstring(text).findall("rect")  # noqa: S314 - our own
        assert len(rows) == min(24, len(counts))


def test_bars_are_as_high_as_their_counts() -> None:
    text = histogram("n", [(0, 0, 5), (1, 2, 10), (3, 6, 0)])
    heights = [float(one.attrib["height"]) for one in ElementTree.fromstring(text).findall("rect")]  # noqa: S314 - our own
    assert heights[0] * 2 == heights[1] > heights[2] == 0
