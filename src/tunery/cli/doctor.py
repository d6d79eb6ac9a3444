"""tunery doctor: what is wrong with this set-up, and how to mend it."""

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import typer

from tunery.cli.console import DataOption, load_settings, out, print_table
from tunery.settings import Settings

_LOW_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `cure` is empty where it is well."""

    subject: str
    found: str
    cure: str = ""


def doctor(data: DataOption = None) -> None:
    """Look at everything and say what to do; ends with code 1 where something is wrong."""
    settings = load_settings(data=data)
    rows, problems = [], 0
    for check in (_versions, _data, _disk, _port, _database, _model, _embeddings, _engine):
        for finding in _looked(check, settings):
            problems += bool(finding.cure)
            mark = "WRONG" if finding.cure else "ok"
            rows.append((mark, finding.subject, finding.found, finding.cure))
    print_table(("", "what", "found", "what to do"), rows)
    if problems:
        out.print(f"{problems} thing(s) to mend.")
        raise typer.Exit(1)
    out.print("All is well.")


def _looked(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    try:
        return list(check(settings))
    except Exception as error:
        name = check.__name__.strip("_")
        return [Finding(name, f"{type(error).__name__}: {error}", "mend this first")]


def _versions(settings: Settings) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", python, "" if sys.version_info >= (3, 11) else "needs 3.11 or newer")
    for package in ("tunery", "fastapi", "sqlalchemy", "tokenizers"):
        yield Finding(package, importlib.metadata.version(package))
    for package in ("torch", "transformers", "peft", "safetensors"):
        if importlib.util.find_spec(package) is None:
            yield Finding(package, "not installed", "pip install 'tunery[torch]'")
        else:
            yield Finding(package, importlib.metadata.version(package))
    if not settings.is_sqlite() and importlib.util.find_spec("psycopg") is None:
        yield Finding("psycopg", "not installed", "pip install 'tunery[postgres]'")


def _data(settings: Settings) -> Iterator[Finding]:
    path = settings.data_path
    if not path.exists():
        yield Finding("data folder", f"{path} is not there yet", "run `tunery up`")
        return
    if not os.access(path, os.W_OK):
        yield Finding("data folder", f"{path} cannot be written", f"chown it to uid {os.getuid()}")
        return
    mode = path.stat().st_mode & 0o077
    cure = f"chmod 700 {path}: others can look into it" if mode else ""
    yield Finding("data folder", str(path), cure)


def _disk(settings: Settings) -> Iterator[Finding]:
    for subject, path in (("data disk", settings.data_path), ("models disk", settings.models_path)):
        existing = next(p for p in (path, *path.parents) if p.exists())
        free = shutil.disk_usage(existing).free
        cure = f"free some space on {existing}" if free < _LOW_DISK_BYTES else ""
        yield Finding(subject, f"{free / 1024**3:.1f} GiB free", cure)


def _port(settings: Settings) -> Iterator[Finding]:
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((settings.host, settings.port)) == 0
    where = f"{settings.host}:{settings.port}"
    if not taken:
        yield Finding("port", f"{where} is free")
        return
    ours = _ready(settings)
    if ours is None:
        yield Finding("port", f"{where} is used by something else", "choose another --port")
    else:
        yield Finding("port", f"{where}: tunery answers, {ours}")


def _ready(settings: Settings) -> str | None:
    import httpx2

    try:
        url = settings.base_url.removesuffix("/v1") + "/readyz"
        value = httpx2.get(url, timeout=3, trust_env=False).json()
        return str(value["status"])
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return None


def _database(settings: Settings) -> Iterator[Finding]:
    from tunery.storage.migrate import is_current
    from tunery.wiring.storage import open_database

    if settings.is_sqlite() and not settings.data_path.exists():
        return
    database = open_database(settings)
    shown = database.url.render_as_string(hide_password=True)
    current = is_current(database)
    database.close()
    yield Finding("database", shown, "" if current else "run `tunery migrate`")


def _model(settings: Settings) -> Iterator[Finding]:
    from pathlib import Path

    from tunery.storage.catalogue import digest
    from tunery.wiring.storage import open_directory

    bases = open_directory(settings).catalogue.all()
    if settings.base not in (base.name for base in bases):
        yield Finding(
            "base model", f"{settings.base} is not in the catalogue", "run `tunery models pull`"
        )
    for base in bases:
        if Path(base.path).is_dir() and digest(Path(base.path)) == base.digest:
            yield Finding("base model", f"{base.name} {base.digest[:12]}")
        else:
            yield Finding(
                "base model",
                f"{base.path} is not what it was when {base.name} was added",
                "run `tunery models pull --again`, or add it again",
            )


def _embeddings(settings: Settings) -> Iterator[Finding]:
    from pathlib import Path

    from tunery.storage.catalogue import DIGESTED_EMBEDDING, digest
    from tunery.wiring.storage import open_directory

    models = open_directory(settings).catalogue.embeddings()
    if not models:  # nothing else needs one
        yield Finding("embeddings", "no model; `tunery models pull` fetches one")
    for model in models:
        if digest(Path(model.path), DIGESTED_EMBEDDING) == model.digest:
            yield Finding("embeddings", f"{model.name} {model.digest[:12]}")
        else:
            yield Finding(
                "embeddings",
                f"{model.path} is not what it was when it was added",
                f"run `tunery models pull {model.name} --again`",
            )


def _engine(settings: Settings) -> Iterator[Finding]:
    import asyncio

    from tunery.domain.errors import TuneryError
    from tunery.inference.embedded import EmbeddedEngine
    from tunery.inference.vllm.connection import NoAnswer
    from tunery.inference.vllm.engine import VllmEngine
    from tunery.wiring.storage import engine_places, open_blobs, open_directory
    from tunery.wiring.vllm import build_vllm

    places, blobs = engine_places(settings), open_blobs(settings)
    announced = places.announced()
    if settings.starts_engine() and not announced:
        yield Finding("engine", "not started yet")
        return
    names = {base.digest: base.name for base in open_directory(settings).catalogue.all()}
    asked: dict[str, Callable[[], EmbeddedEngine | VllmEngine]] = {
        names.get(digest, digest[:12]): partial(EmbeddedEngine, places.address(digest), blobs)
        for digest in announced
    }
    if settings.engine.kind == "vllm":
        asked = {settings.base: partial(build_vllm, settings, blobs)}

    async def ask(client: EmbeddedEngine | VllmEngine) -> str:
        try:
            health = await client.health()
        finally:
            await client.close()
        return f"answers; {health.adapters_resident} adapters, {health.rows_active} requests"

    for name, connect in asked.items():
        try:
            yield Finding("engine", f"{name} {asyncio.run(ask(connect()))}")
        except TuneryError as error:
            if not settings.starts_engine():
                yield Finding("engine", error.message, "start it, or mend TUNERY_VLLM__URL")
            elif settings.engine.kind == "embedded":
                yield Finding("engine", f"{name} does not run; `tunery up` starts it")
            elif isinstance(error, NoAnswer):
                found = f"{name} does not run, or is starting; `tunery up` starts it"
                yield Finding("engine", found)
            else:
                cure = "mend TUNERY_VLLM__COMMAND or TUNERY_VLLM__ARGUMENTS"
                yield Finding("engine", error.message, cure)
