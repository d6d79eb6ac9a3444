"""tunery data: prepare."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunery.cli.console import err, fail, load_settings, told

if TYPE_CHECKING:
    from tunery.domain.models import BaseModel

app = typer.Typer(no_args_is_help=True)

_COLUMN = "Column of a table that holds {}."


@app.callback()
def _main() -> None:
    """Hold the commands: with one of them only, typer would leave its name out."""


@app.command()
def prepare(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, XLSX, TXT, JSON, JSONL or Parquet.")],
    valid: Annotated[
        Path | None,
        typer.Option("--valid", help="A validation file of your own; nothing is split off then."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; else that of the file.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="System message for conversations without one; @FILE reads it."),
    ] = None,
    to: Annotated[
        Literal["chat", "text"] | None,
        typer.Option(help="Write conversations, or prompts with completions."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help=_COLUMN.format("what the user says"))] = None,
    completion: Annotated[
        str | None, typer.Option(help=_COLUMN.format("the answer to be learned"))
    ] = None,
    system_column: Annotated[
        str | None, typer.Option(help=_COLUMN.format("a system message"))
    ] = None,
    preferred: Annotated[str | None, typer.Option(help=_COLUMN.format("the better answer"))] = None,
    non_preferred: Annotated[
        str | None, typer.Option(help=_COLUMN.format("the other answer"))
    ] = None,
    sheet: Annotated[
        str | None, typer.Option(help="Sheet of an XLSX file; else the first.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a file of text that is not UTF-8, such as cp1252.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Base to count tokens for; else the default one.")
    ] = None,
    tokens: Annotated[
        bool, typer.Option(help="Count tokens: the slow part of large files.")
    ] = True,
    share: Annotated[
        float, typer.Option("--share", min=0.0, max=0.5, help="Share split off to validate.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Another seed, another split.")
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Ask nothing: yes to every fix.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing, the report too.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what an earlier run has written.")
    ] = False,
) -> None:
    """Check a file, mend what can be mended, split it, and write it ready for a job."""
    from tunery.cli.data_session import Asked, Session
    from tunery.domain.files import LineFormat

    columns = {
        "prompt": prompt,
        "completion": completion,
        "system": system_column,
        "preferred": preferred,
        "non_preferred": non_preferred,
    }
    target = {"chat": LineFormat.CHAT, "text": LineFormat.COMPLETION, None: None}[to]
    asked = Asked(
        file=file,
        valid=valid,
        folder=out_folder or file.parent,
        system=_system_text(system),
        target=target,
        columns=columns,
        sheet=sheet,
        encoding=encoding,
        share=0.0 if valid is not None else share,
        seed=seed,
        dry_run=dry_run,
        force=force,
    )
    with told():
        done = Session(asked, _base(model) if tokens else None, None if quiet else Terminal()).run()
    if not done:
        raise typer.Exit(1)


class Terminal:
    """Asks whoever sits before it."""

    def confirm(self, question: str) -> bool:
        """Return whether the answer is yes, as it is where nothing is typed."""
        try:
            return typer.confirm(question, default=True)
        except typer.Abort:
            fail("nothing was answered, so nothing is written; -q says yes to everything.")

    def choose(self, question: str, options: Sequence[str], default: str | None) -> str | None:
        """Return one of the options, or None where "-" is typed."""
        try:
            while True:
                answer = str(typer.prompt(question, default=default or "-")).strip()
                if answer == "-" or answer in options:
                    return None if answer == "-" else answer
                err.print(f"Needed one of {', '.join(options)}; or - for none.", markup=False)
        except typer.Abort:
            fail("nothing was answered, so nothing is written; columns can be given as options.")


def _system_text(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--system: {path} cannot be read as UTF-8: {error}.")


def _base(name: str | None) -> "BaseModel | None":
    """Return the base to count for: the default one need not be there."""
    from tunery.wiring.storage import open_directory

    settings = load_settings()
    base = open_directory(settings).catalogue.get(name or settings.base)
    if base is None and name is not None:
        fail(f"{name!r} is no base in {settings.models_path}; `tunery models list` names them.")
    if base is None:
        err.print("Tokens are not counted: there is no base model yet; run `tunery models pull`.")
    return base
