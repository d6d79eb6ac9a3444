"""What the commands share: settings from options, and errors as one line."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from tunery.domain.errors import TuneryError
from tunery.settings import Settings

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder for database, files and keys.")
]


def load_settings(**options: Any) -> Settings:
    """Return the settings: options that were given win over the environment."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "TUNERY_" + "__".join(str(part).upper() for part in first["loc"])
        fail(f"Setting {name}: {first['msg']}; got {first['input']!r}.")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns side by side, none of them cut: their ids are there to be copied."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print("  ".join(cells).rstrip(), markup=False)


def fail(message: str) -> NoReturn:
    """Say what is wrong in one line and end with code 1."""
    err.print(f"tunery: {message}", markup=False)
    raise typer.Exit(1)


@contextmanager
def told() -> Iterator[None]:
    """Turn an error that can be told into its line."""
    try:
        yield
    except TuneryError as error:
        fail(error.message)
    except BrokenPipeError:
        sys.exit(1)
