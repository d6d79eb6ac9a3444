"""What doctor says of the embedding model, and of a vLLM that was started.

The whole command is tested on a running server.
"""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from support.embeddings import make_tiny_embedding
from support.fake_vllm import faked
from tunery.cli.app import app
from tunery.inference.vllm.engine import served_name
from tunery.settings import Settings
from tunery.storage.catalogue import Catalogue
from tunery.wiring.storage import announce


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


def test_a_started_vllm_may_be_down_but_not_too_old(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, data = tmp_path / "models", tmp_path / "data"
    base = Catalogue(models).add("tiny", tiny_model, aliases=(), learning_rate=1e-3)
    monkeypatch.setenv("TUNERY_MODELS", str(models))
    monkeypatch.setenv("TUNERY_BASE", "tiny")
    monkeypatch.setenv("TUNERY_ENGINE__KIND", "vllm")

    def said() -> str:
        done = CliRunner().invoke(app, ["doctor", "--data", str(data)])
        (line,) = [line for line in done.stdout.splitlines() if " engine " in line]
        return line

    data.mkdir(mode=0o700)
    with faked() as fake:
        fake.models = [served_name(base)]
        announce(Settings(data=data), base.digest, fake.url, "s")
        assert said().startswith("ok ")
        assert "tiny answers; " in said()
        fake.version = {"version": "0.17.1"}
        assert said().startswith("WRONG ")
        assert "0.18 or newer" in said()
        assert "TUNERY_VLLM__COMMAND" in said()
    assert said().startswith("ok ")
    assert "does not run, or is starting" in said()
