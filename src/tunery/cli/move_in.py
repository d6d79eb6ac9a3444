"""tunery import openai: look, move in, train anew under the old names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tunery.cli import move_in_pages as pages
from tunery.cli.console import DataOption, err, fail, load_settings, out, told
from tunery.cli.source_keys import AdminKeyFileOption, KeyFileOption, open_source

if TYPE_CHECKING:
    from tunery.domain.ports.source import Source
    from tunery.domain.tenants import Tenant
    from tunery.services.moving import Brought, Plan
    from tunery.services.retraining import Choice
    from tunery.settings import Settings
    from tunery.storage.database import Database

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `openai` a command of its own, also while it is the only one."""


@app.command("openai")
def from_openai(
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done, and end.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    tune: Annotated[
        str | None,
        typer.Option(help="Jobs to train anew, by id with commas between them, or `all`."),
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(
            help="The local base to train them on, or OPENAI_BASE=LOCAL for those of one base; may"
            " be given again. Default: what answers to the old base's name here, else the default.",
        ),
    ] = None,
    hyperparameters: Annotated[
        Literal["auto", "kept"],
        typer.Option(help="auto chooses them for the local base, kept takes the old job's."),
    ] = "auto",
    again: Annotated[
        bool, typer.Option("--again", help="Train anew also what was trained anew before.")
    ] = False,
    file: Annotated[
        list[str] | None,
        typer.Option(help="FILE_ID=PATH: a training file of yours that is gone there."),
    ] = None,
    project: Annotated[str | None, typer.Option(help="Id of the project to move into.")] = None,
    base_url: Annotated[
        str, typer.Option(help="Where to move from: any service that speaks OpenAI's API.")
    ] = "https://api.openai.com/v1",
    api_key_file: KeyFileOption = None,
    admin_key_file: AdminKeyFileOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Go on with what has moved in before; ask nobody.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write the plan, and what came of it, to this file too.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Bring jobs, files and history here, and train the models anew. There, nothing is changed.

    It can be stopped and run again at any time: what is here already is left as it is.
    """
    from tunery.services import accounts
    from tunery.services.retraining import waiting_models
    from tunery.wiring.storage import open_existing_database

    settings = load_settings(data=data)
    found: Plan | None = None
    brought: Brought | None = None
    with told():
        choice = _choice(base or (), hyperparameters, again)
        database = open_existing_database(settings)
        tenant = accounts.find_project(database, project)
        if not offline:
            source = open_source(base_url, api_key_file, admin_key_file)
            try:
                found, brought = _move(database, settings, tenant, source, plan=plan, yes=yes)
            finally:
                source.close()
        _take_files(database, settings, tenant, file or (), plan=plan)
        to_come = {job.id for job in found.jobs} if plan and found is not None else set()
        trained = _train(
            database, settings, tenant, tune, choice, to_come=to_come, plan=plan, yes=yes
        )
        if tune is None and not plan:
            pages.print_waiting(waiting_models(database, tenant))
        if json is not None:
            json.write_bytes(pages.as_json(found, brought, trained))
    if plan:
        out.print("\nNothing was done: this is the plan.")
    elif brought is not None and brought.failed:
        fail(f"{len(brought.failed)} file(s) did not move; run this again.")


def _move(
    database: "Database",
    settings: "Settings",
    tenant: "Tenant",
    source: "Source",
    *,
    plan: bool,
    yes: bool,
) -> "tuple[Plan, Brought | None]":
    from tunery.services.moving import bring, look
    from tunery.wiring.storage import open_blobs

    with err.status(f"Looking at {source.address} ..."):
        found = look(database, tenant, source)
    pages.print_plan(found, tenant)
    if plan or not (found.jobs or found.files):
        return found, None
    if not _agreed("\nMove in?", yes):
        out.print("Nothing was done.")
        raise typer.Exit
    brought = bring(database, open_blobs(settings), tenant, source, found, pages.line)
    pages.line(f"{brought.jobs} jobs and {brought.files} files have moved in.")
    for one in brought.failed:
        pages.line(f"not moved: {one.what}: {one.why}")
    return found, brought


def _take_files(
    database: "Database",
    settings: "Settings",
    tenant: "Tenant",
    given: Sequence[str],
    *,
    plan: bool,
) -> None:
    from tunery.services.moving import add_file
    from tunery.wiring.storage import open_blobs

    for one in given:
        file_id, _, name = one.partition("=")
        path = Path(name).expanduser()
        if not name or not path.is_file():
            fail(f"Got --file {one!r}; needed FILE_ID=PATH, of a file that is there.")
        if not plan:
            new = add_file(
                database, open_blobs(settings), tenant, file_id, path.name, path.read_bytes()
            )
            pages.line(f"{file_id} {'is now' if new else 'was already'} here.")


def _train(
    database: "Database",
    settings: "Settings",
    tenant: "Tenant",
    tune: str | None,
    choice: "Choice",
    *,
    to_come: set[str],
    plan: bool,
    yes: bool,
) -> list[pages.Trained]:
    from tunery.services.retraining import Standing, plan_retraining, start_retraining
    from tunery.wiring.storage import open_blobs, open_directory, renderer_of

    if tune is None:
        return []
    ids = None if tune == "all" else [one.strip() for one in tune.split(",") if one.strip()]
    if to_come and (ids is None or to_come.intersection(ids)):
        out.print("\nWhat training anew takes is told once the jobs and their files are here.")
        ids = None if ids is None else [one for one in ids if one not in to_come]
    directory = open_directory(settings)
    bases = directory.catalogue.all()
    if bases and directory.default not in [one.name for one in bases]:
        directory = replace(directory, default=bases[0].name)  # `tunery up --model` has another one
    with err.status("Counting tokens ..."):
        planned = plan_retraining(
            database, open_blobs(settings), directory, renderer_of, tenant, ids, choice
        )
    pages.print_retraining(planned)
    ready = [one for one in planned if one.standing is Standing.READY]
    if plan or not ready:
        return [pages.Trained(one, None) for one in planned]
    if not _agreed(f"\nTrain {len(ready)} model(s) anew?", yes):
        out.print("Nothing was trained.")
        raise typer.Exit
    started = []
    for one in ready:
        job, new = start_retraining(database, directory, tenant, one, choice)
        started.append(pages.Trained(one, job.id))
        how = "is queued" if new else f"is {job.status} already"
        pages.line(f"{job.id} {how}: {one.job.fine_tuned_model} on {one.base and one.base.name}")
    pages.line("The worker of `tunery up` trains them, one after the other.")
    others = [pages.Trained(one, None) for one in planned if one.standing is not Standing.READY]
    return started + others


def _choice(bases: Sequence[str], hyperparameters: str, again: bool) -> "Choice":
    from tunery.services.retraining import EVERY, Choice

    chosen: dict[str, str] = {}
    for one in bases:
        old, equals, local = one.rpartition("=")
        if not local or (equals and not old):
            fail(f"Got --base {one!r}; needed LOCAL, or OPENAI_BASE=LOCAL.")
        chosen[old or EVERY] = local
    return Choice(chosen, hyperparameters == "kept", again)


def _agreed(question: str, yes: bool) -> bool:
    if yes:
        return True
    try:
        return typer.confirm(question, default=True)
    except typer.Abort:
        fail("Got no answer, so nothing was done; give --yes where nobody can answer.")
