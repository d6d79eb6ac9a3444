"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

from support.contract.spec import VARIABLE, spec_path
from support.databases import (  # noqa: F401
    database,
    database_url,
    empty_url,
    migrated_postgresql,
    migrated_sqlite,
    postgresql_url,
    sqlite_url,
)
from support.families import FAMILIES, make_family
from support.rows import blobs, directory  # noqa: F401
from support.tiny import make_tiny_model

# Before torch's companions are imported: tests never reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random base model; not to be changed."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session", params=FAMILIES)
def any_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny random base of each family; not to be changed."""
    family: str = request.param
    return make_family(tmp_path_factory.mktemp(family), family)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where CI could not hold the answers against OpenAI's own document."""
    if os.environ.get("CI") == "true" and spec_path() is None:
        terminalreporter.write_line(
            f"contract: no OpenAPI document at {VARIABLE};"
            " answers were held against the SDK's types only."
        )
