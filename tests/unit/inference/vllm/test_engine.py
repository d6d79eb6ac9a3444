"""What only the vLLM engine does: faults, adapters' comings and goings, and what goes out."""

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.fake_vllm import DONE, WHOLE, FakeVllm, error, faked, piece, stream
from support.networks import BASE_DIGEST, random_adapter, store, tokens
from support.tiny import make_tiny_model
from support.vllm import HEAD_DIM, MODEL, vllm_engine, vllm_wire
from tunery.domain.errors import InvalidRequest, Overloaded, TuneryError, Unavailable
from tunery.domain.jobs import Adapter
from tunery.domain.ports.engine import Delta, EngineHealth, Generation
from tunery.inference.vllm.engine import VllmEngine
from tunery.inference.vllm.folder import file_name
from tunery.storage.blobs import LocalBlobStore

PLAIN = Generation(tokens(6, 0), BASE_DIGEST, None, 12, temperature=0.0)


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    with faked() as one:
        yield one


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def make(
    fake: FakeVllm, tiny_model: Path, blobs: LocalBlobStore, folder: Path
) -> Callable[..., VllmEngine]:
    return lambda **options: vllm_engine(fake.url, tiny_model, folder, blobs, **options)


def _adapter(tiny_model: Path, blobs: LocalBlobStore, number: int) -> Adapter:
    return store(blobs, f"proj/{number}", random_adapter(tiny_model, number))


def _run(
    make: Callable[[], VllmEngine], work: Callable[[VllmEngine], Coroutine[Any, Any, None]]
) -> None:
    async def within() -> None:
        engine = make()
        try:
            async with asyncio.timeout(30):
                await work(engine)
        finally:
            await engine.close()

    asyncio.run(within())


async def _all(engine: VllmEngine, generation: Generation) -> list[Delta]:
    async with aclosing(engine.generate(generation)) as deltas:
        return [delta async for delta in deltas]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - another thread's state
        await asyncio.sleep(0.01)


def test_a_grammar_is_followed_to_its_end_and_a_wrong_one_refused(
    tmp_path: Path, folder: Path, blobs: LocalBlobStore
) -> None:
    model = make_tiny_model(tmp_path / "model", head_dim=HEAD_DIM)

    async def work(engine: VllmEngine) -> None:
        deltas = await _all(engine, replace(PLAIN, grammar='start: /a[bc]{3}/ "d"'))
        assert re.fullmatch("a[bc]{3}d", "".join(delta.text for delta in deltas))
        assert deltas[-1].finish_reason == "stop"
        with pytest.raises(TuneryError, match="refused") as caught:
            await _all(engine, replace(PLAIN, grammar="start: nowhere"))
        assert not isinstance(caught.value, Unavailable | Overloaded)

    with vllm_wire("grammar", folder) as url:
        _run(lambda: vllm_engine(url, model, folder, blobs), work)


def test_every_field_is_sent_and_nothing_is_left_to_the_servers_defaults(
    fake: FakeVllm, make: Callable[..., VllmEngine]
) -> None:
    asked = replace(
        PLAIN,
        temperature=0.7,
        top_p=0.5,
        stop=("x", "y"),
        seed=-4,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias=((7, 1.5), (2, -100.0)),
        grammar="start: /a+/",
        tenant="org/a",
    )

    async def work(engine: VllmEngine) -> None:
        await _all(engine, asked)
        await _all(engine, replace(PLAIN, top_logprobs=None, top_p=0.0, temperature=1.0))

    _run(make, work)
    first, second = fake.bodies("/v1/completions")
    salts = {first.pop("cache_salt"), second.pop("cache_salt")}
    assert len(salts) == 2
    always = {
        "model": MODEL,
        "prompt": list(PLAIN.prompt_ids),
        "max_tokens": 12,
        "n": 1,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": [],  # the test's tokenizer has no end
        "stream": True,
        "return_token_ids": True,
    }
    assert first == {
        **always,
        "temperature": 0.7,
        "top_p": 0.5,
        "stop": ["x", "y"],
        "seed": -4,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"7": 1.5, "2": -100.0},
        "structured_outputs": {"grammar": "%llguidance {}\nstart: /a+/"},
    }
    assert second == {
        **always,
        "temperature": 0.0,
        "top_p": 1.0,
        "stop": [],
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def test_caches_are_salted_by_tenant_and_adapter(
    fake: FakeVllm, make: Callable[..., VllmEngine], tiny_model: Path, blobs: LocalBlobStore
) -> None:
    one, other = (_adapter(tiny_model, blobs, number) for number in (1, 2))

    async def work(engine: VllmEngine) -> None:
        for _ in range(2):
            for adapter in (None, one, other):
                for tenant in ("", "a", "b"):
                    await _all(engine, replace(PLAIN, adapter=adapter, tenant=tenant))

    _run(make, work)
    salts = [body["cache_salt"] for body in fake.bodies("/v1/completions")]
    assert salts[:9] == salts[9:]
    assert len(set(salts)) == 9
    assert all(re.fullmatch("[0-9a-f]{64}", salt) for salt in salts)
    assert not set(salts) & {file_name(one), file_name(other), one.digest, other.digest}


@pytest.mark.parametrize(
    "changed",
    [{"logit_bias": ((3, 1.0),)}, {"presence_penalty": 0.1}, {"frequency_penalty": -0.1}],
)
def test_log_probabilities_that_vllm_would_tell_wrongly_are_refused_by_name(
    fake: FakeVllm, make: Callable[..., VllmEngine], changed: dict[str, Any]
) -> None:
    async def work(engine: VllmEngine) -> None:
        with pytest.raises(InvalidRequest, match="logit_bias") as caught:
            await _all(engine, replace(PLAIN, top_logprobs=0, **changed))
        assert caught.value.param == "logprobs"
        await _all(engine, replace(PLAIN, **changed))

    _run(make, work)
    assert len(fake.bodies("/v1/completions")) == 1


@pytest.mark.parametrize("version", ["0.17.9", "0.9", "dev", ""])
def test_a_vllm_that_is_too_old_is_refused_by_its_version(
    fake: FakeVllm, make: Callable[..., VllmEngine], version: str
) -> None:
    fake.version = {"version": version}

    async def work(engine: VllmEngine) -> None:
        for ask in (_all(engine, PLAIN), engine.health()):
            with pytest.raises(Unavailable, match=re.escape(f"{version!r}; needed 0.18")):
                await ask

    _run(make, work)
    assert not fake.bodies("/v1/completions")


@pytest.mark.parametrize("version", ["0.18.0", "0.18.1.dev3+gabc", "0.32.0+cpu", "1.0"])
def test_newer_ones_are_taken_and_named(
    fake: FakeVllm, make: Callable[..., VllmEngine], version: str
) -> None:
    fake.version = {"version": version}

    async def work(engine: VllmEngine) -> None:
        assert await _all(engine, PLAIN) == [Delta("a", 1), Delta("b", 2, "length")]
        assert engine.version(BASE_DIGEST) == f"vllm-{version}"
        assert await engine.health() == EngineHealth(BASE_DIGEST, 0, 3, 0)

    _run(make, work)


def test_a_vllm_with_another_base_is_refused(
    fake: FakeVllm, make: Callable[..., VllmEngine]
) -> None:
    fake.models = [f"tiny@{'c' * 16}"]

    async def work(engine: VllmEngine) -> None:
        with pytest.raises(Unavailable, match=f"serves {fake.models[0]}, not {MODEL}"):
            await _all(engine, PLAIN)
        fake.models = [MODEL]
        await _all(engine, PLAIN)
        fake.models = [f"tiny@{'c' * 16}"]  # another server came to the same address
        with pytest.raises(Unavailable, match="serves"):
            await _all(engine, PLAIN)

    _run(make, work)


def test_what_is_no_vllm_is_refused(fake: FakeVllm, make: Callable[..., VllmEngine]) -> None:
    async def work(engine: VllmEngine) -> None:
        answers: list[Any] = [[], {}, "hello"]
        for told in answers:
            fake.version = told
            with pytest.raises(Unavailable, match="no vLLM"):
                await _all(engine, PLAIN)

    _run(make, work)


def test_no_server_is_unavailable(
    make: Callable[..., VllmEngine], tiny_model: Path, folder: Path, blobs: LocalBlobStore
) -> None:
    adapter = _adapter(tiny_model, blobs, 1)

    async def work(engine: VllmEngine) -> None:
        for ask in (
            _all(engine, PLAIN),
            engine.score([[1, 2]], BASE_DIGEST, None),
            engine.load(adapter, BASE_DIGEST),
            engine.health(),
        ):
            with pytest.raises(Unavailable) as caught:
                await ask
            assert caught.value.code == "engine_unavailable"

    _run(lambda: vllm_engine("http://127.0.0.1:9", tiny_model, folder, blobs), work)


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (401, Unavailable, "TUNERY_VLLM__API_KEY"),
        (429, Overloaded, "no room"),
        (503, Overloaded, "no room"),
        (500, Unavailable, "has failed"),
        (502, Unavailable, "has failed"),
        (400, TuneryError, "refused: too much"),
    ],
)
@pytest.mark.parametrize("in_stream", [False, True])
def test_refusals_mean_what_they_say(
    fake: FakeVllm,
    make: Callable[..., VllmEngine],
    status: int,
    kind: type[TuneryError],
    says: str,
    in_stream: bool,
) -> None:
    told = error("too much", status)
    if in_stream:
        fake.lines = [*stream(piece(64), told), DONE]
    else:
        fake.faults["/v1/completions"] = (status, told)

    async def work(engine: VllmEngine) -> None:
        with pytest.raises(TuneryError, match=says) as caught:
            await _all(engine, PLAIN)
        assert type(caught.value) is kind

    _run(make, work)


@pytest.mark.parametrize(
    "lines",
    [
        [DONE],
        [*stream(piece(64)), DONE],
        stream(piece(64)),
        [*stream(piece(64), piece(65, "abort")), DONE],
    ],
)
def test_a_stream_that_ends_without_a_reason_is_not_a_finished_answer(
    fake: FakeVllm, make: Callable[..., VllmEngine], lines: list[str]
) -> None:
    fake.lines = lines

    async def work(engine: VllmEngine) -> None:
        got: list[Delta] = []

        async def read() -> None:
            async with aclosing(engine.generate(PLAIN)) as deltas:
                got.extend([delta async for delta in deltas])

        with pytest.raises(Unavailable) as caught:
            await read()
        assert caught.value.code == "engine_error"
        assert not got

    _run(make, work)


def test_closing_the_iterator_closes_the_response(
    fake: FakeVllm, make: Callable[..., VllmEngine]
) -> None:
    fake.unlocked.clear()

    async def work(engine: VllmEngine) -> None:
        answer = engine.generate(PLAIN)
        assert (await anext(answer)).text == "a"
        await answer.aclose()
        await _until(fake.left.is_set)

    _run(make, work)


def test_more_requests_than_are_allowed_find_no_room(
    fake: FakeVllm, make: Callable[..., VllmEngine]
) -> None:
    fake.unlocked.clear()

    async def work(engine: VllmEngine) -> None:
        running = asyncio.create_task(_all(engine, PLAIN))
        await _until(lambda: bool(fake.bodies("/v1/completions")))
        with pytest.raises(Overloaded, match="TUNERY_VLLM__REQUESTS"):
            await _all(engine, PLAIN)
        fake.unlocked.set()
        await running
        await _all(engine, PLAIN)

    _run(lambda: make(requests=1), work)


def test_first_requests_at_once_load_an_adapter_once(
    fake: FakeVllm,
    make: Callable[..., VllmEngine],
    tiny_model: Path,
    blobs: LocalBlobStore,
    folder: Path,
) -> None:
    adapter = _adapter(tiny_model, blobs, 1)

    async def work(engine: VllmEngine) -> None:
        await asyncio.gather(*(_all(engine, replace(PLAIN, adapter=adapter)) for _ in range(8)))
        assert (await engine.health()).adapter_loads == 1

    _run(make, work)
    name = file_name(adapter)
    assert name == f"proj%2F1@{adapter.digest}"
    load = {"lora_name": name, "lora_path": str(folder / name)}
    assert fake.bodies("/v1/load_lora_adapter") == [load]
    assert {body["model"] for body in fake.bodies("/v1/completions")} == {name}


def test_an_adapter_that_vllm_has_lost_is_loaded_again(
    fake: FakeVllm, make: Callable[..., VllmEngine], tiny_model: Path, blobs: LocalBlobStore
) -> None:
    adapter = _adapter(tiny_model, blobs, 1)

    async def work(engine: VllmEngine) -> None:
        for _ in range(2):
            assert (await _all(engine, replace(PLAIN, adapter=adapter)))[-1].finish_reason
            fake.restart()
        await engine.load(adapter, BASE_DIGEST)
        assert list(fake.adapters) == [file_name(adapter)]

    _run(make, work)
    assert len(fake.bodies("/v1/load_lora_adapter")) == 3


def test_an_adapter_that_another_process_has_loaded_is_used(
    fake: FakeVllm, make: Callable[..., VllmEngine], tiny_model: Path, blobs: LocalBlobStore
) -> None:
    adapter = _adapter(tiny_model, blobs, 1)

    async def work(engine: VllmEngine) -> None:
        await _all(engine, replace(PLAIN, adapter=adapter))

    _run(make, work)
    _run(make, work)
    assert len(fake.bodies("/v1/completions")) == 2


def test_unloading_waits_for_requests_and_holds_new_ones_back(
    fake: FakeVllm,
    make: Callable[..., VllmEngine],
    tiny_model: Path,
    blobs: LocalBlobStore,
    folder: Path,
) -> None:
    adapter = _adapter(tiny_model, blobs, 1)
    asked = replace(PLAIN, adapter=adapter)

    async def work(engine: VllmEngine) -> None:
        running = engine.generate(asked)
        fake.unlocked.clear()
        await anext(running)
        unloading = asyncio.create_task(engine.unload(adapter, BASE_DIGEST))
        await asyncio.sleep(0.1)  # time to do it wrongly
        late = asyncio.create_task(_all(engine, asked))
        await asyncio.sleep(0.1)
        assert not fake.bodies("/v1/unload_lora_adapter")
        assert len(fake.bodies("/v1/completions")) == 1
        fake.unlocked.set()
        assert [delta async for delta in running][-1].finish_reason == "length"
        await unloading
        assert (await late)[-1].finish_reason == "length"  # loaded again for it
        assert len(fake.bodies("/v1/unload_lora_adapter")) == 1
        await engine.unload(adapter, BASE_DIGEST)
        assert not fake.adapters
        assert os.listdir(folder) == []
        await engine.unload(adapter, BASE_DIGEST)  # and once more does no harm

    _run(make, work)
    paths = [path for path, _ in fake.asked if "lora" in path or "completions" in path]
    short = [path.removeprefix("/v1/").partition("_")[0] for path in paths]
    assert short == ["load", "completions", "unload", "load", "completions", "unload", "unload"]


def test_the_longest_unused_adapter_that_rests_makes_room(
    fake: FakeVllm, make: Callable[..., VllmEngine], tiny_model: Path, blobs: LocalBlobStore
) -> None:
    adapters = [_adapter(tiny_model, blobs, number) for number in range(4)]
    names = [file_name(adapter) for adapter in adapters]

    async def work(engine: VllmEngine) -> None:
        fake.unlocked.clear()
        used = engine.generate(replace(PLAIN, adapter=adapters[0]))
        await anext(used)  # the oldest, but it does not rest
        fake.unlocked.set()
        for number in (1, 2):
            await _all(engine, replace(PLAIN, adapter=adapters[number]))
        assert set(fake.adapters) == {names[0], names[2]}
        assert [delta async for delta in used][-1].finish_reason == "length"
        await _all(engine, replace(PLAIN, adapter=adapters[3]))
        assert set(fake.adapters) == {names[2], names[3]}
        assert (await engine.health()).adapter_evictions == 2

    _run(lambda: make(most=2), work)


def test_two_processes_share_server_and_folder(
    fake: FakeVllm, make: Callable[..., VllmEngine], tiny_model: Path, blobs: LocalBlobStore
) -> None:
    """Two clients: locks are held by open files, so one process can stand for two."""
    adapter = _adapter(tiny_model, blobs, 1)
    asked = replace(PLAIN, adapter=adapter)

    async def work(one: VllmEngine) -> None:
        other = make()
        fake.unlocked.clear()
        running = other.generate(asked)
        await anext(running)
        unloading = asyncio.create_task(one.unload(adapter, BASE_DIGEST))
        await asyncio.sleep(0.1)
        assert list(fake.adapters) == [file_name(adapter)]  # the other one's answer needs it
        fake.unlocked.set()
        assert [delta async for delta in running][-1].finish_reason == "length"
        await unloading
        assert not fake.adapters
        assert (await _all(other, asked))[-1].finish_reason == "length"  # found out, loaded again
        await other.close()

    _run(make, work)


def test_a_vllm_that_loads_no_adapters_says_what_it_needs(
    fake: FakeVllm, make: Callable[..., VllmEngine], tiny_model: Path, blobs: LocalBlobStore
) -> None:
    adapter = _adapter(tiny_model, blobs, 1)
    fake.faults["/v1/load_lora_adapter"] = (404, {"detail": "Not Found"})

    async def work(engine: VllmEngine) -> None:
        with pytest.raises(TuneryError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
            await _all(engine, replace(PLAIN, adapter=adapter))
        assert (await _all(engine, PLAIN)) == [Delta("a", 1), Delta("b", 2, "length")]

    assert fake.lines == WHOLE
    _run(make, work)


def test_a_broken_vllm_is_unavailable_and_not_healthy(
    fake: FakeVllm, make: Callable[..., VllmEngine], tiny_model: Path, blobs: LocalBlobStore
) -> None:
    adapter = _adapter(tiny_model, blobs, 1)
    fake.faults = {
        "/v1/load_lora_adapter": (500, error("EngineCore encountered an issue", 500)),
        "/health": (503, ""),
    }

    async def work(engine: VllmEngine) -> None:
        with pytest.raises(Overloaded):
            await _all(engine, replace(PLAIN, adapter=adapter))
        with pytest.raises(Unavailable):
            await engine.health()

    _run(make, work)
