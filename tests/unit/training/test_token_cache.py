"""Examples on disk: what is written is read, what is damaged is made anew."""

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tunery.datasets.batches import Example
from tunery.datasets.reader import Line
from tunery.domain.errors import StorageFull
from tunery.training import token_cache
from tunery.training.token_cache import CachedExamples, TokenCache

LINES = 50


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "SHARD_TOKENS", 100)


def example(number: int, vocabulary: int = 300) -> Example:
    """Return an example of 1 to 40 tokens, the highest id among them."""
    generator = random.Random(number)
    size = generator.randint(1, 40)
    ids = [vocabulary - 1, *(generator.randrange(vocabulary) for _ in range(size - 1))]
    return Example(ids, [generator.random() < 0.5 for _ in range(size)])


class Source:
    """A file of `LINES` lines that remembers which were rendered."""

    def __init__(self, vocabulary: int = 300, stop_at: int | None = None) -> None:
        self._vocabulary, self._stop_at = vocabulary, stop_at
        self.rendered: list[int] = []

    def lines(self) -> Iterator[Line]:
        return (Line(number, b"") for number in range(LINES))

    def render(self, line: Line) -> Example:
        if line.number == self._stop_at:
            raise KeyboardInterrupt
        self.rendered.append(line.number)
        return example(line.number, self._vocabulary)


def opened(folder: Path, source: Source, vocabulary: int = 300) -> CachedExamples:
    return TokenCache(folder, vocabulary - 1, lambda _: None).open(source.lines, source.render)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*"))


@pytest.mark.parametrize("vocabulary", [300, 1 << 16, (1 << 16) + 1, 200_000])
def test_examples_are_read_as_they_were_rendered_and_rendered_once(
    tmp_path: Path, vocabulary: int
) -> None:
    folder = tmp_path / "cache"
    expected = [example(number, vocabulary) for number in range(LINES)]
    source = Source(vocabulary)
    for _ in ("made", "found"):
        examples = opened(folder, source, vocabulary)
        assert list(examples) == expected
        assert list(examples.lengths) == [len(one.token_ids) for one in expected]
        assert source.rendered == list(range(LINES))
    assert examples[-1] == expected[-1]
    assert examples[3:30:5] == expected[3:30:5]
    for place in (LINES, -LINES - 1):
        with pytest.raises(IndexError):
            examples[place]
    tokens = sum(examples.lengths)
    assert len(shards(folder)) > tokens / 140
    width = 2 if vocabulary <= 1 << 16 else 4
    on_disk = sum(path.stat().st_size for path in shards(folder))
    # Ids, a bit each rounded up, and where the lines start.
    assert on_disk <= tokens * (width + 1 / 8) + len(shards(folder)) * (1 + 4) + 4 * LINES


def test_an_empty_file_has_no_examples(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path, 300, lambda _: None)
    for _ in range(2):
        examples = cache.open(lambda: iter(()), lambda _: example(0))
        assert list(examples) == []
        assert len(examples.lengths) == 0


@pytest.mark.parametrize("damage", ["a bit", "cut off", "gone", "another", "longer"])
@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_shard_that_is_not_what_it_was_is_made_anew_and_no_other(
    tmp_path: Path, damage: str, which: int
) -> None:
    whole = opened(tmp_path, Source())
    expected = list(whole)
    path = shards(tmp_path)[which]
    before = path.read_bytes()
    if damage == "a bit":
        path.write_bytes(before[:5] + bytes([before[5] ^ 1]) + before[6:])
    elif damage == "cut off":
        path.write_bytes(before[:-1])
    elif damage == "longer":
        path.write_bytes(before + b"\0")
    elif damage == "another":
        path.write_bytes(shards(tmp_path)[1].read_bytes())
    else:
        path.unlink()
    source = Source()
    assert list(opened(tmp_path, source)) == expected
    assert path.read_bytes() == before
    counts = [len(source.rendered), LINES]
    assert 0 < counts[0] < counts[1] / 2
    assert source.rendered == list(range(source.rendered[0], source.rendered[-1] + 1))
    again = Source()
    assert list(opened(tmp_path, again)) == expected
    assert again.rendered == []


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'{"shards": [{"lines": 3}]}'])
def test_a_damaged_manifest_has_all_made_anew(tmp_path: Path, manifest: bytes) -> None:
    expected = list(opened(tmp_path, Source()))
    (tmp_path / "manifest.json").write_bytes(manifest)
    source = Source()
    assert list(opened(tmp_path, source)) == expected
    assert len(source.rendered) == LINES


@pytest.mark.parametrize("stop_at", [0, 1, 17, LINES - 1])
def test_what_was_made_before_an_interruption_is_not_made_again(
    tmp_path: Path, stop_at: int
) -> None:
    expected = [example(number) for number in range(LINES)]
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, Source(stop_at=stop_at))
    kept = len(shards(tmp_path))
    source = Source()
    assert list(opened(tmp_path, source)) == expected
    first = source.rendered[0]
    assert first <= stop_at
    assert (first == 0) == (kept == 0)
    assert source.rendered == list(range(first, LINES))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        *(path.name for path in shards(tmp_path)),
    ]


def test_without_room_nothing_is_left_half_written(tmp_path: Path) -> None:
    asked: list[int] = []

    def make_room(size: int) -> None:
        asked.append(size)
        if len(asked) == 3:
            raise StorageFull("no room")

    source = Source()
    with pytest.raises(StorageFull, match="no room"):
        TokenCache(tmp_path, 300, make_room).open(source.lines, source.render)
    assert [path.stat().st_size for path in shards(tmp_path)] == asked[:2]
    assert len(list(opened(tmp_path, Source()))) == LINES


def test_a_line_takes_four_bytes_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "SHARD_TOKENS", 5000)
    lines, size = 20_000, 25
    token = Example(list(range(size)), [True] * size)

    def source() -> Iterable[Line]:
        return (Line(number, b"") for number in range(lines))

    cache = TokenCache(tmp_path, 300, lambda _: None)
    cache.open(source, lambda _: token)
    tracemalloc.start()
    examples = cache.open(source, lambda _: token)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(examples) == lines
    shard = 300  # of a shard's place in the manifest, 100 of them here
    assert kept < 4 * lines * 1.2 + 100 * shard + 2**14
