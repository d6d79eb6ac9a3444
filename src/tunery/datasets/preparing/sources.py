"""A file's format, by its name and its first bytes, and the source that reads it."""

from functools import partial
from pathlib import Path

import orjson

from tunery.datasets.preparing.binary_sources import ParquetRows, Workbook
from tunery.datasets.preparing.items import Source, Unreadable
from tunery.datasets.preparing.json_source import read_json
from tunery.datasets.preparing.text_sources import (
    TEXT,
    delimiter_of,
    encoding_of,
    header_of,
    read_json_lines,
    read_table,
    read_text_lines,
)

KNOWN = "CSV, TSV, XLSX, TXT, JSON, JSONL, Parquet"
_SUFFIXES = {".ndjson": ".jsonl", ".tab": ".tsv", ".pq": ".parquet", ".md": ".txt"}
_PEEKED_BYTES = 1024 * 1024


def open_source(path: Path, *, encoding: str | None = None, sheet: str | None = None) -> Source:
    """Return the source of a file; raise Unreadable where it is of no known format."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_PEEKED_BYTES)
    except OSError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}.") from None
    if not start:
        raise Unreadable(f"{path.name} is empty.")
    suffix = path.suffix.lower()
    suffix = _SUFFIXES.get(suffix, suffix)
    if suffix == ".xlsx" or start.startswith(b"PK\x03\x04"):
        book = Workbook(path, sheet)
        columns = book.columns()
        return Source("XLSX", "row", size, partial(book.read, columns, size), columns)
    if suffix == ".parquet" or start.startswith(b"PAR1"):
        rows = ParquetRows(path)
        columns = rows.columns()
        return Source("Parquet", "row", size, partial(rows.read, columns, size), columns)
    name = encoding_of(path, encoding)
    if suffix in (".csv", ".tsv"):
        delimiter = "\t" if suffix == ".tsv" else delimiter_of(path, name)
        columns = header_of(path, name, delimiter)
        kind = "TSV" if delimiter == "\t" else "CSV"
        return Source(
            kind, "line", size, partial(read_table, path, name, delimiter, columns), columns
        )
    if suffix == ".jsonl" or (suffix == ".json" and _is_lines(start)):
        return Source("JSON Lines", "line", size, partial(read_json_lines, path, name))
    if suffix == ".json":
        return Source("JSON", "item", size, partial(read_json, path, name))
    if suffix == ".txt":
        return Source("text", "line", size, partial(read_text_lines, path, name), (TEXT,))
    raise Unreadable(f"{path.name} has no ending that is known; needed one of {KNOWN}.")


def _is_lines(start: bytes) -> bool:
    """Whether a file of JSON has an object a line: its first line is one, and more follows."""
    first, _, rest = start.lstrip(b"\xef\xbb\xbf \r\n\t").partition(b"\n")
    if not first.startswith(b"{") or not rest.strip():
        return False
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return True
