"""tunery replay: recorded prompts to the old and the new model, and how far their answers agree."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from tunery.cli.console import DataOption, err, fail, load_settings, out, print_table, told
from tunery.cli.source_keys import KeyFileOption, open_source, read_key

if TYPE_CHECKING:
    from tunery.datasets.recorded import RecordedPrompt
    from tunery.outgoing.openai import OpenAISource
    from tunery.services.replaying import Agreement, Ask, Replayed
    from tunery.settings import Settings

_SHOWN = 20  # prompts, those that agree the least


def replay(
    prompts: Annotated[
        Path | None,
        typer.Argument(help="Lines of JSON: training examples, chat requests, or --record's."),
    ] = None,
    old: Annotated[str | None, typer.Option(help="The model as it is called there.")] = None,
    new: Annotated[
        str | None, typer.Option(help="The model here; default: the old one's name.")
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Take the completions that are stored there.")
    ] = False,
    ask_old: Annotated[
        bool,
        typer.Option("--ask-old", help="Ask the old model again, which costs what it costs there."),
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="Write prompts and old answers here, to be replayed later.")
    ] = None,
    only_record: Annotated[
        bool, typer.Option("--only-record", help="Ask no new model: end with the record.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most prompts.")] = 1000,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Prompts under way together.")] = 4,
    base_url: Annotated[
        str, typer.Option(help="Where the old model is.")
    ] = "https://api.openai.com/v1",
    api_key_file: KeyFileOption = None,
    new_base_url: Annotated[
        str | None, typer.Option(help="Where the new model is; default: the `tunery up` of --data.")
    ] = None,
    new_api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key for it; default: the first project's.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every answer to this file.")] = None,
    data: DataOption = None,
) -> None:
    """Put recorded prompts to old and new, and say how far the answers agree.

    Recorded answers stand for the old model's, unless it is asked again.
    """
    from tunery.outgoing.asking import Asker
    from tunery.services import replaying

    if (prompts is None) == (not stored):
        fail("Give a file of prompts, or --stored.")
    if only_record and record is None:
        fail("Got --only-record and no --record to write to.")
    if old is None and (ask_old or (new is None and not only_record)):
        fail(
            "Give --old, the name of the old model; the new one has it too, unless --new is given."
        )
    settings = load_settings(data=data)
    with told(), ExitStack() as stack:
        source = open_source(base_url, api_key_file) if stored or ask_old else None
        if source is not None:
            stack.callback(source.close)
        asked_old: Ask | None = None
        asked_new: Ask | None = None
        if ask_old and source is not None and old is not None:
            asker = Asker(base_url, source.key, old)
            stack.callback(asker.close)
            asked_old = asker.ask
        if not only_record:
            url, key = _new_place(settings, new_base_url, new_api_key_file)
            asker = Asker(url, key, new or old or "")
            stack.callback(asker.close)
            asked_new = asker.ask
        taken = islice(_from_file(prompts) if prompts else _from_source(source, old), limit)
        with err.status("Asking ..."):
            replayed = list(replaying.replay(taken, asked_old, asked_new, at_once))
        if record is not None:
            _write_record(record, replayed)
        if only_record:
            out.print(f"{len(replayed)} prompts are in {record}.")
            return
        total = replaying.agreement(replayed)
        if json is not None:
            json.write_bytes(_as_json(old, new or old, replayed, total))
    _print(replayed, total)
    if total.failed:
        fail(f"{total.failed} of {total.prompts} prompts were not answered.")


def _from_file(path: Path) -> "Iterator[RecordedPrompt]":
    from tunery.datasets.recorded import read_prompts

    if not path.is_file():
        fail(f"There is no file {path}.")
    with path.open("rb") as handle:
        yield from read_prompts(handle)


def _from_source(source: "OpenAISource | None", model: str | None) -> "Iterator[RecordedPrompt]":
    from tunery.datasets.recorded import of_stored

    if source is None:
        return
    for number, completion in enumerate(source.completions(model), 1):
        yield of_stored(number, completion, source.messages(str(completion["id"])))


def _new_place(settings: "Settings", url: str | None, key_file: Path | None) -> tuple[str, str]:
    """Return where the new model is, and the key: what `tunery up` has written, if not given."""
    known: dict[str, str] = {}
    env = settings.data_path / "env"
    if env.is_file():
        pairs = (line.partition("=") for line in env.read_text().splitlines())
        known = {name: "".join(shlex.split(value)) for name, _, value in pairs}
    found = url or known.get("OPENAI_BASE_URL")
    key = read_key(key_file, None) or known.get("OPENAI_API_KEY")
    if found is None or key is None:
        fail(
            f"There is no address of a `tunery up` in {settings.data_path}; give its --data, or"
            " --new-base-url and --new-api-key-file."
        )
    return found, key


def _write_record(path: Path, replayed: "Sequence[Replayed]") -> None:
    from tunery.datasets.recorded import record_line

    with path.open("wb") as handle:
        for one in replayed:
            if one.old is not None:
                handle.write(record_line(one.prompt, one.old))


def _print(replayed: "Sequence[Replayed]", total: "Agreement") -> None:
    compared = [one for one in replayed if one.likeness is not None]
    least = sorted(compared, key=lambda one: one.likeness.token_f1 if one.likeness else 0.0)
    shown = sorted(least[:_SHOWN], key=lambda one: one.prompt.number)
    rows = []
    for one in shown:
        if one.likeness is not None:
            as_json = {None: "-", True: "yes", False: "no"}[one.likeness.json_equal]
            rows.append(
                (
                    str(one.prompt.number),
                    "yes" if one.likeness.exact else "no",
                    "yes" if one.likeness.normalized else "no",
                    as_json,
                    f"{one.likeness.token_f1:.2f}",
                )
            )
    if len(compared) > len(shown):
        out.print(f"The {len(shown)} prompts that agree the least; --json has them all.")
    print_table(("prompt", "exact", "normalized", "JSON", "token F1"), rows)
    for one in replayed:
        if one.error:
            err.print(f"prompt {one.prompt.number}: {one.error}", markup=False)
    as_json = f"{total.json_equal:.1%} of {total.json_prompts}" if total.json_prompts else "none"
    out.print(
        f"\n{total.compared} of {total.prompts} prompts compared: exact {total.exact:.1%},"
        f" normalized {total.normalized:.1%}, JSON-equal {as_json},"
        f" token F1 {total.token_f1:.3f} in the mean."
    )


def _as_json(
    old: str | None, new: str | None, replayed: "Sequence[Replayed]", total: "Agreement"
) -> bytes:
    rows = [
        {
            "prompt": one.prompt.number,
            "body": one.prompt.body,
            "old": one.old,
            "new": one.new,
            "error": one.error or None,
            **({} if one.likeness is None else asdict(one.likeness)),
        }
        for one in replayed
    ]
    value = {"old": old, "new": new, "agreement": asdict(total), "prompts": rows}
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)
