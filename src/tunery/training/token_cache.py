"""A file's examples on this machine's disk: rendered once, then read one at a time.

Token ids and masks stand in shards of flat arrays, each written aside, flushed and renamed, and
held to its hash whenever the cache is opened: one that is missing or damaged is made anew. Examples
are read with pread rather than mapped, so that what was read counts as the kernel's cache and not
as this process's memory. Knows no template, nor how many examples a line of the file gives: that
is its caller's.
"""

import hashlib
import os
import secrets
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TypeVar, overload

import orjson

from tunery.datasets.batches import Example
from tunery.domain.errors import TuneryError, disk_errors_told

SHARD_TOKENS = 1 << 20  # a shard is closed once it has as many: it is made in memory
_MANIFEST = "manifest.json"
_PIECE = 1 << 20
_BITS = [tuple(bool(byte >> bit & 1) for bit in range(8)) for byte in range(256)]

T = TypeVar("T")  # what an example is made of


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard as the manifest knows it.

    Its file holds the ids, then a bit for each that says whether it is learned, then where each
    line starts and the last one ends, in tokens.
    """

    lines: int
    tokens: int
    sha256: str


class CachedExamples(Sequence[Example]):
    """The examples of a file, each read when it is asked for; `lengths` are in memory."""

    def __init__(
        self, folder: Path, id_type: str, shards: Sequence[_Shard], lengths: "array[int]"
    ) -> None:
        self._folder, self._id_type, self._shards = folder, id_type, shards
        self._firsts = [0]
        for shard in shards[:-1]:
            self._firsts.append(self._firsts[-1] + shard.lines)
        self.lengths = lengths
        """How many tokens each example has."""

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> list[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | list[Example]:
        numbers = range(len(self))[place]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        number = bisect_right(self._firsts, numbers) - 1
        return self._read(number, numbers - self._firsts[number])

    def _read(self, number: int, line: int) -> Example:
        shard = self._shards[number]
        ids = array(self._id_type)
        masks_at = shard.tokens * ids.itemsize
        offsets = array("I")
        offsets_at = masks_at + _bytes_of(shard.tokens) + line * offsets.itemsize
        with (self._folder / _name(number)).open("rb", buffering=0) as file:
            offsets.frombytes(_pread(file.fileno(), 2 * offsets.itemsize, offsets_at))
            start, end = offsets
            ids.frombytes(_pread(file.fileno(), (end - start) * ids.itemsize, start * ids.itemsize))
            first = start // 8
            packed = _pread(file.fileno(), _bytes_of(end) - first, masks_at + first)
        mask = list(chain.from_iterable(map(_BITS.__getitem__, packed)))
        return Example(ids.tolist(), mask[start - 8 * first : end - 8 * first])


class TokenCache:
    """The examples of one file for one base, in a folder of their own.

    Two processes may make the same cache at once: they write the same bytes.
    """

    def __init__(self, folder: Path, highest_id: int, make_room: Callable[[int], None]) -> None:
        """`make_room` is called with a shard's bytes before they are written.

        It may raise StorageFull.
        """
        self._folder = folder
        self._id_type = "H" if highest_id < 1 << 16 else "I"
        self._make_room = make_room

    def open(
        self, source: Callable[[], Iterable[T]], render: Callable[[T], Example]
    ) -> CachedExamples:
        """Return the examples; those that are not on disk, or not as they were, are made.

        Raises StorageFull where the disk takes no more.
        """
        shards, whole = self._manifest()
        lengths = [self._verified(number, shard) for number, shard in enumerate(shards)]
        if not whole or None in lengths:
            with disk_errors_told(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._make(iter(source()), render, shards, lengths)
        every = array("I")
        for one in lengths:
            every += one or array("I")
        return CachedExamples(self._folder, self._id_type, shards, every)

    def _make(
        self,
        lines: Iterator[T],
        render: Callable[[T], Example],
        shards: list[_Shard],
        lengths: "list[array[int] | None]",
    ) -> None:
        """Write the shards that are missing in `shards` and `lengths`, and all that follow."""
        for number, shard in enumerate(shards):
            own = islice(lines, shard.lines)
            if lengths[number] is None:
                shards[number], lengths[number] = self._write(number, own, render)
                self._note(shards, whole=False)
            else:
                for _ in own:
                    pass
        for first in lines:
            shard, made = self._write(len(shards), chain([first], lines), render, SHARD_TOKENS)
            shards.append(shard)
            lengths.append(made)
            self._note(shards, whole=False)
        self._note(shards, whole=True)

    def _write(
        self,
        number: int,
        lines: Iterable[T],
        render: Callable[[T], Example],
        most_tokens: int | None = None,
    ) -> "tuple[_Shard, array[int]]":
        """Write a shard of `lines`, or of as many as have `most_tokens`."""
        ids, learned, offsets = array(self._id_type), bytearray(), array("I", [0])
        for line in lines:
            example = render(line)
            ids.extend(example.token_ids)
            learned += bytes(example.supervised)
            offsets.append(len(ids))
            if most_tokens is not None and len(ids) >= most_tokens:
                break
        parts = (memoryview(ids).cast("B"), _packed(learned), memoryview(offsets).cast("B"))
        self._make_room(sum(map(len, parts)))
        digest = self._put(_name(number), *parts)
        return _Shard(len(offsets) - 1, len(ids), digest), _differences(offsets)

    def _verified(self, number: int, shard: _Shard) -> "array[int] | None":
        """Return the lengths of a shard's lines, or None where its bytes are not what they were."""
        digest = hashlib.sha256()
        offsets = array("I")
        size = (shard.lines + 1) * offsets.itemsize
        last = bytearray()
        try:
            with (self._folder / _name(number)).open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
                    last = (last + piece)[-size:]
        except FileNotFoundError:
            return None
        if digest.hexdigest() != shard.sha256:
            return None
        offsets.frombytes(last)
        return _differences(offsets)

    def _manifest(self) -> tuple[list[_Shard], bool]:
        try:
            value = orjson.loads((self._folder / _MANIFEST).read_bytes())
            return [_Shard(**shard) for shard in value["shards"]], bool(value["whole"])
        except FileNotFoundError:
            return [], False
        except (KeyError, TypeError, ValueError):  # damaged: all is made anew
            return [], False

    def _note(self, shards: Sequence[_Shard], *, whole: bool) -> None:
        value = {"whole": whole, "shards": [asdict(shard) for shard in shards]}
        self._put(_MANIFEST, orjson.dumps(value))

    def _put(self, name: str, *parts: bytes | memoryview) -> str:
        """Write a file whole or not at all, make it durable, and return its digest."""
        digest = hashlib.sha256()
        temporary = self._folder / f".{name}.{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                for part in parts:
                    digest.update(part)
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._folder / name)
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return digest.hexdigest()


def _name(number: int) -> str:
    return f"shard-{number:05}"


def _bytes_of(bits: int) -> int:
    return -(-bits // 8)


def _packed(flags: bytearray) -> bytes:
    """Return a bit for each byte of 0 or 1, the first one lowest."""
    size = _bytes_of(len(flags))
    flags += bytes(8 * size - len(flags))
    whole = sum(int.from_bytes(flags[bit::8], "little") << bit for bit in range(8))
    return whole.to_bytes(size, "little")


def _differences(offsets: "array[int]") -> "array[int]":
    return array("I", (end - start for start, end in pairwise(offsets)))


def _pread(file: int, size: int, place: int) -> bytes:
    data = os.pread(file, size, place)
    if len(data) != size:
        raise TuneryError(
            "A file of the token cache was cut off while it was in use; run the job again."
        )
    return data
