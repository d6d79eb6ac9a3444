"""The settings' vLLM: where it is asked, and what is not served with it."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from support.fake_vllm import FakeVllm, faked
from tunery.domain.errors import InvalidRequest
from tunery.domain.models import EmbeddingModel
from tunery.inference.vllm.engine import VllmEngine, served_name
from tunery.settings import EngineSettings, Settings, VllmSettings
from tunery.storage.catalogue import Catalogue
from tunery.wiring.parts import build_parts
from tunery.wiring.storage import announce, open_blobs, open_database, open_directory
from tunery.wiring.vllm import build_vllm


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    with faked() as one:
        yield one


def _settings(tiny_model: Path, folder: Path, fake: FakeVllm, url: str | None) -> Settings:
    base = Catalogue(folder / "models").add("tiny", tiny_model, aliases=(), learning_rate=1e-3)
    fake.models = [served_name(base)]
    return Settings(
        data=folder / "data",
        models=folder / "models",
        base="tiny",
        engine=EngineSettings(kind="vllm"),
        vllm=VllmSettings(url=url),
    )


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_one_at_a_url_is_asked_there(
    tiny_model: Path, tmp_path: Path, fake: FakeVllm, end: str
) -> None:
    settings = _settings(tiny_model, tmp_path, fake, fake.url + end)
    _healthy(build_vllm(settings, open_blobs(settings)))


def test_one_of_ours_is_asked_where_it_has_said(
    tiny_model: Path, tmp_path: Path, fake: FakeVllm
) -> None:
    settings = _settings(tiny_model, tmp_path, fake, None)
    engine = build_vllm(settings, open_blobs(settings))
    announce(settings, open_directory(settings).base().digest, fake.url, "s")
    _healthy(engine)


def test_embeddings_are_refused_by_name(tiny_model: Path, tmp_path: Path, fake: FakeVllm) -> None:
    settings = _settings(tiny_model, tmp_path, fake, fake.url)
    parts = build_parts(settings, open_database(settings), open_blobs(settings), supervised=False)
    assert isinstance(parts.engine, VllmEngine)
    model = EmbeddingModel("mini", (), "/m", "e" * 64, 384, 256, Decimal("0.02"), 7)
    with pytest.raises(InvalidRequest, match="TUNERY_ENGINE__KIND=vllm") as refused:
        asyncio.run(parts.embedder.embed([[1]], model))
    assert refused.value.param == "model"


def _healthy(engine: VllmEngine) -> None:
    async def ask() -> None:
        health = await engine.health()
        assert health.rows_active == 3
        await engine.close()

    asyncio.run(ask())
