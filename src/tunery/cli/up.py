"""tunery up: API, worker and engines as processes of their own, watched and restarted.

Ctrl-C and SIGTERM end them in order. However this process ends, they end with it.
"""

import fcntl
import os
import shlex
import signal
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import IO, Annotated

import typer

from tunery.cli.console import DataOption, err, fail, load_settings, out, told
from tunery.cli.engines import Engines
from tunery.cli.kept import Kept
from tunery.cli.processes import HostOption, PortOption, listen
from tunery.cli.supervised import VARIABLE
from tunery.domain.errors import TuneryError
from tunery.settings import DEFAULT_BASE, Settings

READY_S = 120.0


def up(
    host: HostOption = None,
    port: PortOption = None,
    data: DataOption = None,
    model: Annotated[
        str | None,
        typer.Option(help="The base model to start at once; others start when asked for."),
    ] = None,
    organization: Annotated[
        str, typer.Option(help="Name of the organization that the first start makes.")
    ] = "personal",
) -> None:
    """Start everything and stay until told to stop."""
    settings = load_settings(host=host, port=port, data=data, base=model)
    lock = _lock(settings)
    with told():
        _prepare(settings, organization)
    if settings.port == 0:
        with listen(settings.host, 0) as probe:
            settings = settings.model_copy(update={"port": probe.getsockname()[1]})
    else:
        listen(settings.host, settings.port).close()
    with told():
        _write_env(settings)
    code = Supervisor(settings).run()
    lock.close()
    raise typer.Exit(code)


def _lock(settings: Settings) -> IO[str]:
    """Hold the data folder: two of us on one folder would fight over it."""
    from tunery.wiring.storage import make_data_folder

    try:
        handle = (make_data_folder(settings) / "lock").open("a")
    except OSError as error:
        fail(f"Cannot use the data folder {settings.data_path}: {error.strerror}.")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fail(f"Another `tunery up` runs on {settings.data_path}; stop it or choose another --data.")
    return handle


def _prepare(settings: Settings, organization: str) -> None:
    """Have the base model, the schema and the first account there."""
    from tunery.services import accounts
    from tunery.storage.migrate import migrate
    from tunery.wiring.storage import load_pepper, open_database, open_directory

    catalogue = open_directory(settings).catalogue
    if catalogue.get(settings.base) is None:
        if settings.base != DEFAULT_BASE:
            fail(
                f"There is no base model {settings.base!r} in {settings.models_path}; add one with"
                f" `tunery models add {settings.base} FOLDER`."
            )
        from tunery.cli.pull import SMOLLM2, pull

        pull(catalogue, SMOLLM2, None)
    database = open_database(settings)
    try:
        migrate(database)
        first = accounts.create_first_account(database, load_pepper(settings), organization)
    finally:
        database.close()
    if first is not None:
        keys = {
            "OPENAI_API_KEY": first.project_key.secret,
            "OPENAI_ADMIN_KEY": first.admin_key.secret,
        }
        _save_env(settings, keys)


def _env_path(settings: Settings) -> Path:
    return settings.data_path / "env"


def _write_env(settings: Settings) -> None:
    """Bring the address in the env file up to date; its keys stay."""
    path = _env_path(settings)
    keys = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            name, _, value = line.partition("=")
            keys[name] = "".join(shlex.split(value))
    keys.pop("OPENAI_BASE_URL", None)
    _save_env(settings, keys)


def _save_env(settings: Settings, keys: dict[str, str]) -> None:
    from tunery.wiring.storage import write_private

    values = {"OPENAI_BASE_URL": settings.base_url, **keys}
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    write_private(_env_path(settings), text)


class Supervisor:
    """Starts the processes, restarts those that end, and ends them all."""

    def __init__(self, settings: Settings) -> None:
        from tunery.wiring.memory import bound_bytes, engine_bytes, process_bytes
        from tunery.wiring.storage import engine_places, open_directory

        self._settings = settings
        environment = {
            **os.environ,
            VARIABLE: "1",
            "TUNERY_DATA": str(settings.data_path),
            "TUNERY_BASE": settings.base,
            "TUNERY_HOST": settings.host,
            "TUNERY_PORT": str(settings.port),
        }
        tunery = [sys.executable, "-m", "tunery"]
        self._engine: Engines | Kept | None = None  # a vLLM at a URL is the operator's
        if settings.engine.kind == "embedded":
            self._engine = Engines(
                [*tunery, "engine"],
                environment,
                engine_places(settings),
                open_directory(settings).bases,
                partial(engine_bytes, settings=settings.engine),
                process_bytes,
                bound_bytes(settings.engine),
            )
        elif settings.starts_engine():
            self._engine = Kept("engine", [*tunery, "engine"], environment)
        self._worker = Kept("worker", [*tunery, "work"], environment)
        self._api = Kept("api", [*tunery, "serve"], environment)
        self._stopping = threading.Event()
        self._told = ""

    def run(self) -> int:
        """Run until a signal; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        threading.Thread(target=self._announce, daemon=True).start()
        while not self._stopping.is_set():
            self._keep_engine()
            self._worker.keep()
            self._api.keep()
            self._stopping.wait(0.2)
        out.print("Stopping ...")
        self._stop_all()
        return 0

    def _keep_engine(self) -> None:
        """Look after the engines; a catalogue that cannot be read now is read again later."""
        try:
            if self._engine is not None:
                self._engine.keep()
        except (TuneryError, OSError, ValueError, KeyError) as error:
            if str(error) != self._told:
                self._told = str(error)
                err.print(f"The engines cannot be looked after: {error}", markup=False)

    def _stop_all(self) -> None:
        """End the API first, so that what it has accepted is still answered."""
        seconds = self._settings.drain_s + 5.0
        self._api.stop(seconds)
        self._worker.stop(5)
        if self._engine is not None:
            self._engine.stop(seconds)

    def _announce(self) -> None:
        """Say when everything is ready."""
        url = self._settings.base_url
        deadline = time.monotonic() + READY_S
        while not self._stopping.wait(0.2):
            try:
                ready = url.removesuffix("/v1") + "/readyz"
                with urllib.request.urlopen(ready, timeout=2):  # noqa: S310 - our own http URL
                    break
            except OSError:
                if time.monotonic() > deadline:
                    err.print(f"Not ready after {READY_S:.0f} s; `tunery doctor` may say why.")
                    return
        if not self._stopping.is_set():
            path = _env_path(self._settings)
            out.print(f"tunery serves {self._settings.base} at {url}")
            out.print(f"For a client: set -a; . {shlex.quote(str(path))}; set +a", markup=False)
            out.print("Ctrl-C stops it.")
