"""What doctor says of the embedding model. The whole command is tested on a running server."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.embeddings import make_tiny_embedding
from tunery.cli.app import app
from tunery.storage.catalogue import Catalogue


def test_an_embedding_model_may_be_missing_but_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(tmp_path / "models")
    monkeypatch.setenv("TUNERY_MODELS", str(catalogue.root))

    def said() -> str:
        done = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path / "data")])
        (line,) = [line for line in done.stdout.splitlines() if " embeddings " in line]
        return line

    assert said().startswith("ok ")
    assert "tunery models pull" in said()
    folder = make_tiny_embedding(tmp_path / "weights")
    model = catalogue.add_embedding("mini", folder, aliases=())
    assert said().startswith("ok ")
    assert f"mini {model.digest[:12]}" in said()
    (folder / "tokenizer.json").write_text("{}")
    assert said().startswith("WRONG ")
    assert "tunery models pull mini --again" in said()
