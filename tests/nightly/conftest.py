"""What a nightly run is told, and where it leaves its figures."""

import datetime
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from support.server import Server, make_catalogue
from tunery.inference.places import arithmetic_of
from tunery.model import native
from tunery.settings import Settings
from tunery.wiring.storage import native_folder

FOLDER = Path(__file__).resolve().parents[2] / "build" / "nightly"
TABLES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    today = int(datetime.date.today().strftime("%Y%m%d"))
    parser.addoption("--seed", type=int, default=today, help="of every random choice")
    parser.addoption("--requests", type=int, default=10_000, help="of the isolation run")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for table in config.stash.get(TABLES, []):
        terminalreporter.write_line(table)


class Figures:
    """Keeps what a run has measured: a file of JSON, and a table at the end of the output."""

    def __init__(self, config: pytest.Config) -> None:
        self.seed: int = config.getoption("--seed")
        self._tables = config.stash.setdefault(TABLES, [])

    def keep(self, name: str, figures: Mapping[str, Any]) -> None:
        """Write `build/nightly/<name>.json`."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        machine = {"cpus": os.cpu_count(), "machine": platform.processor() or platform.machine()}
        FOLDER.mkdir(parents=True, exist_ok=True)
        document = {"date": now, "seed": self.seed, "machine": machine, **figures}
        (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=2))
        lines = [f"  {key:32} {value}" for key, value in figures.items()]
        self._tables.append("\n".join([f"{name}, seed {self.seed}, {now}", *lines]))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """Return where figures are kept."""
    return Figures(pytestconfig)


@pytest.fixture(scope="session")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder that knows the tiny model."""
    return make_catalogue(tmp_path_factory.mktemp("catalogue"), tiny_model)


def build_native(models: Path) -> None:
    """Compile the native operations beside the models: an engine has them then from its start.

    Else it begins in torch and changes over while it is asked. Where this machine cannot compile
    or run them there are none, and the figures say so: see `arithmetic`.
    """
    folder = native_folder(Settings(models=models))
    if native.built(folder) is None:
        with suppress(native.NotBuilt):
            native.build(folder)


def arithmetic(server: Server) -> str:
    """Return what the server's engine computes in, such as `native-int8`."""
    return arithmetic_of(server.data / f"engines/{server.digest()}.json").read_text()


def in_any_batch_alike(computes_in: str, models: Path) -> bool:
    """Return whether an answer must be the same to the bit, whatever is computed beside it.

    So it is in eight bits, except in a processor's tiles: those change their form with the rows.
    """
    path = native.built(native_folder(Settings(models=models)))
    if computes_in != "native-int8" or path is None:
        return False
    native.load(path)
    return not torch.ops.tunery.has_tiles()
