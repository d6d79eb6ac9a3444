"""Each request goes to its base's engine, which is asked for by a mark and waited for."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from support.networks import BASE_DIGEST, serving, tokens
from tunery.domain.errors import Unavailable
from tunery.domain.ports.engine import Generation
from tunery.inference.engines import EmbeddedEngines
from tunery.inference.places import EnginePlaces, Mark, arithmetic_of
from tunery.storage.blobs import LocalBlobStore

OTHER = "f" * 64
GENERATION = Generation(tokens(6, 0), BASE_DIGEST, None, 3, temperature=0.0)


@pytest.fixture
def places(tmp_path: Path) -> EnginePlaces:
    (tmp_path / "engines").mkdir()
    return EnginePlaces(tmp_path / "engines")


def with_engines(
    places: EnginePlaces,
    tmp_path: Path,
    work: Callable[[EmbeddedEngines], Coroutine[Any, Any, None]],
    *,
    default: str = BASE_DIGEST,
    start_s: float = 0.0,
) -> None:
    async def run() -> None:
        blobs = LocalBlobStore(tmp_path / "blobs")
        engines = EmbeddedEngines(places, blobs, lambda: default, start_s)
        try:
            await work(engines)
        finally:
            await engines.close()

    asyncio.run(run())


async def made(engines: EmbeddedEngines, generation: Generation = GENERATION) -> int:
    async with aclosing(engines.generate(generation)) as deltas:
        return [delta async for delta in deltas][-1].completion_tokens


def test_a_request_goes_to_its_base_and_marks_it_as_wanted(
    tiny_model: Path, places: EnginePlaces, tmp_path: Path
) -> None:
    async def work(engines: EmbeddedEngines) -> None:
        assert (await engines.health()).rows_active == 0
        assert list(places.wanted()) == []  # to look is not to want
        assert await made(engines) <= 3
        assert [digest for _, digest in places.wanted()] == [BASE_DIGEST]
        with pytest.raises(Unavailable) as told:
            await engines.score([[1, 2]], OTHER, None)
        assert told.value.code == "engine_unavailable"
        assert {digest for _, digest in places.wanted()} == {BASE_DIGEST, OTHER}

    with serving(tiny_model, places.address(BASE_DIGEST)):
        with_engines(places, tmp_path, work)


def test_a_request_waits_for_the_engine_that_it_has_started(
    tiny_model: Path, places: EnginePlaces, tmp_path: Path
) -> None:
    async def work(engines: EmbeddedEngines) -> None:
        asked = asyncio.create_task(made(engines))
        while not places.mark(BASE_DIGEST).exists():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
        assert places.announced() == []
        with serving(tiny_model, places.address(BASE_DIGEST)):
            assert await asked <= 3

    with_engines(places, tmp_path, work, start_s=60.0)


def test_health_is_that_of_an_engine_which_the_default_one_made_room_for(
    tiny_model: Path, places: EnginePlaces, tmp_path: Path
) -> None:
    async def there(engines: EmbeddedEngines) -> None:
        assert (await engines.health()).base_digest == BASE_DIGEST

    async def gone(engines: EmbeddedEngines) -> None:
        places.address(OTHER).write_text('{"url": "http://127.0.0.1:1", "secret": ""}')
        with pytest.raises(Unavailable):  # it has not made room: it has crashed
            await engines.health()

    with serving(tiny_model, places.address(BASE_DIGEST)):
        with_engines(places, tmp_path, there, default=OTHER)
        with_engines(places, tmp_path, gone, default=OTHER)


def test_a_bases_engine_says_what_it_computes_in(tmp_path: Path) -> None:
    places = EnginePlaces(tmp_path)
    engines = EmbeddedEngines(places, LocalBlobStore(tmp_path / "store"), lambda: "one", 0.0)
    plain = engines.version("one")
    said = arithmetic_of(places.address("one"))
    for arithmetic in ("torch-bfloat16", "native-int8"):
        kept = said.with_name("new")
        kept.write_text(arithmetic)
        kept.rename(said)
        assert engines.version("one") == f"{plain}-{arithmetic}"
        assert engines.version("other") == plain
    said.unlink()
    assert engines.version("one") == plain


def test_a_mark_is_touched_again_only_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "engines" / "a.wanted"
    mark = Mark(path)
    mark.renew()
    path.unlink()
    mark.renew()
    assert not path.exists()
