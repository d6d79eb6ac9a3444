"""The commands."""

from typing import Annotated

import typer

import tunery
from tunery.cli import children, data, doctor, keys, models, move_in, processes, replay, up
from tunery.cli.console import DataOption, load_settings, out, told

app = typer.Typer(
    name="tunery",
    help="Your own fine-tuning service behind OpenAI's API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up", help="Start everything on this machine: API, worker and engine.")(up.up)
app.command("serve", help="Run the API alone.")(processes.serve)
app.command("work", help="Run a worker alone: it checks files, trains and publishes.")(
    processes.work
)
app.command("engine", help="Run the embedded engine alone.")(processes.engine)
app.command("replay", help="Put recorded prompts to an old and a new model, and compare.")(
    replay.replay
)
app.command("doctor", help="Say what is wrong with this set-up, and how to mend it.")(doctor.doctor)
app.add_typer(data.app, name="data", help="Make data ready for tuning.")
app.add_typer(keys.app, name="keys", help="Create, list and revoke API keys.")
app.add_typer(models.app, name="models", help="List, fetch, add and name models.")
app.add_typer(move_in.app, name="import", help="Move in from another service.")
app.add_typer(children.app, name="child", hidden=True)


@app.command(help="Bring the database to this version's schema.")
def migrate(data: DataOption = None) -> None:
    """Migrate."""
    from tunery.storage.migrate import migrate as run_migrations
    from tunery.wiring.storage import open_database

    settings = load_settings(data=data)
    with told():
        run_migrations(open_database(settings))
    out.print("The database has this version's schema.")


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"tunery {tunery.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of the command itself."""


def run() -> None:
    """Run the command line."""
    app()
