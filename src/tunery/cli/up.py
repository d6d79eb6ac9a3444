"""tunery up: API, worker and engine as processes of their own, watched and restarted.

Ctrl-C and SIGTERM end them in order. However this process ends, they end with it.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated

import typer

from tunery.cli.console import DataOption, err, fail, load_settings, out, told
from tunery.cli.processes import DRAIN_S, HostOption, PortOption, listen
from tunery.cli.supervised import VARIABLE
from tunery.settings import DEFAULT_BASE, Settings

STABLE_S = 60.0  # a child that lived this long is restarted at once again
MAX_BACKOFF_S = 30.0
READY_S = 120.0


def up(
    host: HostOption = None,
    port: PortOption = None,
    data: DataOption = None,
    model: Annotated[str | None, typer.Option(help="The base model to serve and tune.")] = None,
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


@dataclass(slots=True)
class _Child:
    """One supervised process."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    start_at: float = field(default=0.0)


class Supervisor:
    """Starts the processes, restarts those that end, and ends them all."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._environment = {
            **os.environ,
            VARIABLE: "1",
            "TUNERY_DATA": str(settings.data_path),
            "TUNERY_BASE": settings.base,
            "TUNERY_HOST": settings.host,
            "TUNERY_PORT": str(settings.port),
        }
        tunery = [sys.executable, "-m", "tunery"]
        self._children = [
            *([_Child("engine", [*tunery, "engine"])] if settings.starts_engine() else []),
            _Child("worker", [*tunery, "work"]),
            _Child("api", [*tunery, "serve"]),
        ]
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run until a signal; return the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._stopping.set())
        threading.Thread(target=self._announce, daemon=True).start()
        while not self._stopping.is_set():
            for child in self._children:
                self._keep(child)
            self._stopping.wait(0.2)
        out.print("Stopping ...")
        self._stop_all()
        return 0

    def _keep(self, child: _Child) -> None:
        """Start the child if it does not run; after a crash, wait longer each time."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.start_at:
                child.started = now
                child.process = subprocess.Popen(
                    child.command,
                    stdin=subprocess.PIPE,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is ours to pass on
                )
            return
        code = child.process.poll()
        if code is None:
            return
        if now - child.started > STABLE_S:
            child.failures = 0
        child.failures += 1
        delay = min(MAX_BACKOFF_S, 0.5 * 2 ** (child.failures - 1))
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        err.print(f"The {child.name} {how}; starting it again in {delay:.1f} s.")
        if child.process.stdin is not None:
            child.process.stdin.close()
        child.process, child.start_at = None, now + delay

    def _stop_all(self) -> None:
        """End the API first, so that what it has accepted is still answered."""
        for child in reversed(self._children):
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
                try:
                    child.process.wait(DRAIN_S + 5 if child.name != "worker" else 5)
                except subprocess.TimeoutExpired:
                    child.process.kill()
                    child.process.wait()

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
