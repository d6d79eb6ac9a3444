"""Vectors over real loopback HTTP, asked for by the engine's own client."""

import asyncio
import threading
from array import array
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.embeddings import DIMENSIONS, make_tiny_embedding, vector_by_hand
from support.networks import SECRET, serving, until
from tunery.domain.errors import Overloaded, TuneryError, Unavailable
from tunery.domain.models import EmbeddingModel
from tunery.inference.embedding import EmbeddedEmbedder
from tunery.storage.catalogue import Catalogue

TEXTS = [[2, *([4, 5, 6, 7] * (n % 4)), n % 17, 3] for n in range(600)]


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "engine.json"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    catalogue = Catalogue(tmp_path / "models")
    folder = make_tiny_embedding(tmp_path / "weights")
    catalogue.add_embedding("tiny-embedding", folder, aliases=("text-embedding-3-small",))
    return catalogue


@pytest.fixture
def model(catalogue: Catalogue) -> EmbeddingModel:
    (model,) = catalogue.embeddings()
    return model


def _asked(address: Path, work: Callable[[EmbeddedEmbedder], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        embedder = EmbeddedEmbedder(address)
        try:
            await work(embedder)
        finally:
            await embedder.close()

    asyncio.run(run())


def test_many_texts_come_back_in_order_from_many_callers_at_once(
    tiny_model: Path, address: Path, catalogue: Catalogue, model: EmbeddingModel
) -> None:
    async def work(embedder: EmbeddedEmbedder) -> None:
        first, second = await asyncio.gather(
            embedder.embed(TEXTS, model), embedder.embed(TEXTS[::-1], model)
        )
        for found in (first, second[::-1]):
            assert [vector.typecode for vector in found] == ["f"] * len(TEXTS)
            for ids, vector in zip(TEXTS[::29], found[::29], strict=True):
                expected = vector_by_hand(Path(model.path), ids)
                assert list(vector) == pytest.approx(expected, abs=1e-5)
        assert await embedder.embed([], model) == []

    with serving(tiny_model, address, find_embedding=catalogue.embedding_of):
        _asked(address, work)


def test_a_model_that_is_not_there_is_unavailable_and_found_once_it_is(
    tiny_model: Path, address: Path, catalogue: Catalogue, model: EmbeddingModel
) -> None:
    entry = catalogue.root / "tiny-embedding" / "tunery.json"
    hidden = entry.with_suffix(".hidden")
    weights = Path(model.path) / "model.safetensors"
    good = weights.read_bytes()

    async def refused(embedder: EmbeddedEmbedder) -> None:
        with pytest.raises(Unavailable, match="tiny-embedding") as caught:
            await embedder.embed([[2, 3]], model)
        assert caught.value.code == "model_files_missing"

    async def work(embedder: EmbeddedEmbedder) -> None:
        entry.rename(hidden)
        await refused(embedder)
        hidden.rename(entry)
        weights.write_bytes(good[:-8])
        await refused(embedder)
        weights.write_bytes(good)
        (vector,) = await embedder.embed([[2, 3]], model)
        assert list(vector) == pytest.approx(vector_by_hand(Path(model.path), [2, 3]), abs=1e-5)

    with serving(tiny_model, address, find_embedding=catalogue.embedding_of):
        _asked(address, work)


def test_what_the_model_cannot_read_is_refused_and_harms_nothing(
    tiny_model: Path, address: Path, catalogue: Catalogue, model: EmbeddingModel
) -> None:
    async def work(embedder: EmbeddedEmbedder) -> None:
        refused: tuple[list[list[int]], ...] = (
            [[2, 17, 3]],
            [[2, 2**62]],
            [[-1]],
            [[]],
            [[2, 3], [4] * 65],
        )
        for wrong in refused:
            with pytest.raises(TuneryError, match="refused") as caught:
                await embedder.embed(wrong, model)
            assert not isinstance(caught.value, Unavailable | Overloaded)
        with pytest.raises(Unavailable, match="vectors of 31"):
            await embedder.embed([[2, 3]], replace(model, dimensions=DIMENSIONS - 1))
        (vector,) = await embedder.embed([[4] * 64], model)
        assert vector == array("f", vector)
        assert len(vector) == DIMENSIONS

    with serving(tiny_model, address, find_embedding=catalogue.embedding_of):
        _asked(address, work)


def test_only_who_has_the_secret_is_answered(
    tiny_model: Path, address: Path, catalogue: Catalogue, model: EmbeddingModel
) -> None:
    body = {"token_ids": [[2, 3]], "digest": model.digest}
    with (
        serving(tiny_model, address, find_embedding=catalogue.embedding_of) as served,
        httpx2.Client(base_url=served.url, trust_env=False) as client,
    ):
        for value in ("", "Bearer wrong", SECRET):
            headers = {"authorization": value}
            assert client.post("/embed", json=body, headers=headers).status_code == 401
        good = {"authorization": f"Bearer {SECRET}"}
        assert len(client.post("/embed", json=body, headers=good).content) == 4 * DIMENSIONS
        many = {**body, "token_ids": [[2]] * 2049}
        assert client.post("/embed", json=many, headers=good).status_code == 422


def test_a_full_queue_answers_overloaded_and_takes_requests_again(
    tiny_model: Path, address: Path, catalogue: Catalogue, model: EmbeddingModel
) -> None:
    async def work(embedder: EmbeddedEmbedder) -> None:
        hold = threading.Event()

        def block() -> None:
            assert hold.wait(20)

        served.scheduler.call(block)
        waiting = asyncio.create_task(embedder.embed([[2, 3]], model))
        await asyncio.to_thread(until, lambda: bool(found))
        with pytest.raises(Overloaded):
            await embedder.embed([[2, 3]], model)
        hold.set()
        assert len(await waiting) == len(await embedder.embed([[2, 3]], model)) == 1

    found: list[str] = []

    def find(digest: str) -> EmbeddingModel | None:
        found.append(digest)
        return catalogue.embedding_of(digest)

    with serving(tiny_model, address, queue=1, find_embedding=find) as served:
        _asked(address, work)


def test_an_engine_that_is_not_there_or_stops_is_unavailable(
    tiny_model: Path, address: Path, catalogue: Catalogue, model: EmbeddingModel
) -> None:
    async def work(embedder: EmbeddedEmbedder) -> None:
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                await embedder.embed([[2, 3]], model)
            assert caught.value.code == "engine_unavailable"
            with serving(tiny_model, address, find_embedding=catalogue.embedding_of):
                assert len(await embedder.embed([[2, 3]], model)) == 1

    _asked(address, work)
