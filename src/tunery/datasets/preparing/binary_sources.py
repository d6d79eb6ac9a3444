"""XLSX and Parquet, read row by row. Their readers come with the extra `data`."""

import datetime
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import orjson

from tunery.datasets.preparing.items import Item, Progress, Unreadable
from tunery.datasets.preparing.text_sources import column_names
from tunery.datasets.reader import short
from tunery.domain.errors import InvalidRequest

_ROWS_AT_ONCE = 256


def _reader(module: str, path: Path) -> Any:
    """Return a reader's module, or say how to get it."""
    try:
        return import_module(module)
    except ImportError:
        raise Unreadable(
            f"{path.name} needs {module.partition('.')[0]}, which is not installed; run"
            " `pip install 'tunery[data]'`."
        ) from None


class Workbook:
    """A sheet of an XLSX file. A formula is read as the value that was saved with it."""

    def __init__(self, path: Path, sheet: str | None) -> None:
        self._path = path
        self._sheet = sheet
        self._openpyxl = _reader("openpyxl", path)

    def columns(self) -> tuple[str, ...]:
        """Return the names in the first row that is not blank."""
        for _, row in self._rows():
            return column_names(row)
        raise Unreadable(f"{self._path.name} is empty; a header and rows are needed.")

    def read(self, columns: Sequence[str], size: int, progress: Progress) -> Iterator[Item]:
        """Yield the rows below the header; their numbers are the sheet's own."""
        rows = self._rows()
        next(rows, None)
        for number, row in rows:
            cells = [*row, *[""] * (len(columns) - len(row))]
            yield Item(number, dict(zip(columns, cells, strict=False)))
        progress(size)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        with self._path.open("rb") as file:
            try:
                yield from self._rows_of(file)
            except InvalidRequest:
                raise
            except Exception as error:  # of a broken archive, whatever its parsers raise
                first = str(error).splitlines()[:1]
                why = f"{type(error).__name__} {first[0][:160] if first else ''}".rstrip()
                raise Unreadable(f"{self._path.name} is not an XLSX file: {why}.") from None

    def _rows_of(self, file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles, which are not looked at
            book = self._openpyxl.load_workbook(file, read_only=True, data_only=True)
        names = book.sheetnames
        if self._sheet is not None and self._sheet not in names:
            raise Unreadable(
                f"{self._path.name} has no sheet {short(self._sheet)}; it has"
                f" {', '.join(names)[:200]}."
            )
        sheet = book[self._sheet if self._sheet is not None else names[0]]
        for number, row in enumerate(sheet.iter_rows(values_only=True), 1):
            cells = [_cell(value) for value in row]
            if any(cell.strip() for cell in cells):
                yield number, cells


def _cell(value: Any) -> str:
    """Return a cell as it is read out: dates in ISO's form, whole numbers without a point."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and not any(value.timetuple()[3:6]):
        return value.date().isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


class ParquetRows:
    """The rows of a Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parquet = _reader("pyarrow.parquet", path)
        self._arrow = _reader("pyarrow", path)

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        with self._opened() as file:
            return tuple(file.schema_arrow.names)

    def read(self, columns: Sequence[str], size: int, progress: Progress) -> Iterator[Item]:
        """Yield the rows, numbered from 1. Fields that are null in a struct are left out."""
        del columns
        number = 0
        with self._opened() as file:
            count = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield self._item(number, row)
                progress(size * number // count)

    def _item(self, number: int, row: dict[str, Any]) -> Item:
        try:
            value = _without_nulls(orjson.loads(orjson.dumps(row, default=str)))
        except (orjson.JSONEncodeError, RecursionError) as error:
            return Item(number, None, f"cannot be written as JSON: {error}")
        return Item(number, value)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with self._parquet.ParquetFile(self._path) as file:
                yield file
        except (self._arrow.ArrowException, OSError) as error:
            first = str(error).splitlines()[0][:200]
            raise Unreadable(f"{self._path.name} is not a Parquet file: {first}") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return value
