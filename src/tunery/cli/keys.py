"""tunery keys: create, list, revoke."""

import datetime
from typing import Annotated

import typer

from tunery.cli.console import DataOption, load_settings, out, print_table, told
from tunery.domain.tenants import KeyKind

app = typer.Typer(no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "key",
    kind: Annotated[KeyKind, typer.Option(help="What the key opens.")] = KeyKind.PROJECT,
    project: Annotated[str | None, typer.Option(help="Id of its project.")] = None,
    new_project: Annotated[
        str | None, typer.Option(help="Make a project of this name for the key.")
    ] = None,
    organization: Annotated[
        str, typer.Option(help="Organization of the new project; made where it is missing.")
    ] = "personal",
    data: DataOption = None,
) -> None:
    """Make a key and show it, this once."""
    from tunery.services import accounts
    from tunery.wiring.storage import load_pepper, open_existing_database

    settings = load_settings(data=data)
    with told():
        database = open_existing_database(settings)
        if new_project is not None:
            project = accounts.create_project(database, organization, new_project).project_id
        new = accounts.create_key(database, load_pepper(settings), kind, name, project)
    out.print(f"{new.key.id}  {new.key.kind} key of {new.key.tenant.project_id}; shown only now:")
    out.print(new.secret)


@app.command("list")
def list_all(data: DataOption = None) -> None:
    """List the keys, without their secrets."""
    from tunery.services import accounts
    from tunery.wiring.storage import open_existing_database

    settings = load_settings(data=data)
    rows = []
    with told():
        for key in accounts.list_keys(open_existing_database(settings)):
            created = datetime.datetime.fromtimestamp(key.created_at, datetime.UTC)
            state = "active" if key.revoked_at is None else "revoked"
            when = f"{created:%Y-%m-%d %H:%M}Z"
            rows.append((key.id, key.kind, key.name, key.hint, key.tenant.project_id, when, state))
    print_table(("id", "kind", "name", "ends in", "project", "created", "state"), rows)


@app.command()
def revoke(key_id: str, data: DataOption = None) -> None:
    """Make a key open nothing from now on."""
    from tunery.services import accounts
    from tunery.wiring.storage import open_existing_database

    settings = load_settings(data=data)
    with told():
        accounts.revoke_key(open_existing_database(settings), key_id)
    out.print(f"{key_id} is revoked.")
