"""Files of text: JSON Lines, CSV and TSV, plain lines. Read as streams, never as a whole."""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tunery.datasets.preparing.items import Item, Progress, Unreadable
from tunery.datasets.reader import MAX_LINE_BYTES, BadLine, lines, parse_unique

_CHUNK_BYTES = 1024 * 1024
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = (",", ";", "\t", "|")
NOT_UTF8 = "is not UTF-8; say which it is, such as --encoding cp1252"
TEXT = "text"  # the only column of a file of plain lines


def encoding_of(path: Path, given: str | None) -> str:
    """Return the encoding of a file of text: the one given, else what its first bytes say."""
    if given is not None:
        try:
            return codecs.lookup(given).name
        except LookupError:
            raise Unreadable(
                f"Got encoding {given[:40]!r}; needed one that Python knows, such as cp1252."
            ) from None
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _BOMS if start.startswith(mark)), "utf-8")


def chunks_of(path: Path, encoding: str, progress: Progress) -> Iterator[bytes]:
    """Yield a file's text as UTF-8, in chunks; what is UTF-8 already is passed on as it is."""
    plain = encoding in ("utf-8", "utf-8-sig")
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            done += len(chunk)
            # What cannot be decoded becomes bytes that are not UTF-8: the line's check says so.
            yield chunk if plain else decoder.decode(chunk).encode("utf-8", "surrogateescape")
            progress(done)


def read_json_lines(path: Path, encoding: str, progress: Progress) -> Iterator[Item]:
    """Yield the items of a JSONL file."""
    return items_of(chunks_of(path, encoding, progress))


def items_of(chunks: Iterable[bytes]) -> Iterator[Item]:
    """Yield the items of JSON Lines."""
    for line in lines(chunks):
        try:
            yield Item(line.number, parse_unique(line), None, line.data)
        except BadLine as error:
            yield Item(line.number, None, str(error))


def read_text_lines(path: Path, encoding: str, progress: Progress) -> Iterator[Item]:
    """Yield each line that is not blank as an item of one text."""
    for line in lines(chunks_of(path, encoding, progress)):
        if line.data is None:
            yield Item(line.number, None, f"is longer than {MAX_LINE_BYTES // 2**20} MiB")
            continue
        try:
            yield Item(line.number, {TEXT: line.data.decode().rstrip("\r")})
        except UnicodeDecodeError:
            yield Item(line.number, None, NOT_UTF8)


def delimiter_of(path: Path, encoding: str) -> str:
    """Return what a table's header is divided by: the commonest of comma, semicolon, tab, bar."""
    with path.open("rb") as file, _decoded(file, encoding) as text:
        header = text.readline(_CHUNK_BYTES)
    return max(_DELIMITERS, key=header.count)


def header_of(path: Path, encoding: str, delimiter: str) -> tuple[str, ...]:
    """Return a table's column names: its first row."""
    with path.open("rb") as file, _decoded(file, encoding) as text:
        for _, row in _rows(text, path, delimiter):
            return column_names(row)
    raise Unreadable(f"{path.name} is empty; a header and rows are needed.")


def column_names(row: Sequence[str]) -> tuple[str, ...]:
    """Return a header's names: those that are empty or there already get a number."""
    names: list[str] = []
    for number, cell in enumerate(row, 1):
        name = cell.strip() or f"column {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return tuple(names)


def read_table(
    path: Path, encoding: str, delimiter: str, columns: Sequence[str], progress: Progress
) -> Iterator[Item]:
    """Yield the rows of a CSV or TSV file as items; their numbers are lines of the file."""
    with path.open("rb") as file, _decoded(file, encoding) as text:
        rows = _rows(text, path, delimiter)
        next(rows, None)
        for count, (number, row) in enumerate(rows):
            if count % 512 == 0:
                progress(file.tell())
            yield _row_item(number, row, columns)


def _row_item(number: int, row: list[str], columns: Sequence[str]) -> Item:
    if len(row) > len(columns) and any(row[len(columns) :]):
        many = f"has {len(row)} cells where the header has {len(columns)}"
        return Item(number, None, f"{many}; a text with the delimiter in it needs quotes")
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        return Item(number, None, NOT_UTF8)
    cells = [*row, *[""] * (len(columns) - len(row))]
    return Item(number, dict(zip(columns, cells, strict=False)))


def _decoded(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    return io.TextIOWrapper(file, name, errors="surrogateescape", newline="")


def _rows(text: io.TextIOWrapper, path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with the number of the line that each begins on."""
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader(text, delimiter=delimiter)
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise Unreadable(
                f"{path.name}, line {begins}: {error}; is there a quote that is never closed?"
            ) from None
        except UnicodeError as error:
            raise Unreadable(f"{path.name} is not {text.encoding}: {error}.") from None
        if any(cell.strip() for cell in row):
            yield begins, row
