"""The engine over real loopback HTTP, asked by its own client."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from support.networks import (
    BASE_DIGEST,
    SECRET,
    answer_of,
    endless_tokenizer,
    log_probabilities,
    merged_model,
    plain_model,
    random_adapter,
    serving,
    store,
    tokens,
)
from tunery.domain.errors import Overloaded, Unavailable
from tunery.domain.jobs import Adapter
from tunery.domain.ports.engine import Delta, EngineHealth, Generation
from tunery.inference.embedded import EmbeddedEngine, adapter_name
from tunery.storage.blobs import LocalBlobStore

PROMPT = tokens(6, 0)


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def address(tmp_path: Path) -> Path:
    return tmp_path / "engine.json"


def _generation(count: int, adapter: Adapter | None = None, **others: Any) -> Generation:
    return replace(
        Generation(PROMPT, BASE_DIGEST, adapter, count, temperature=1.0, seed=1), **others
    )


async def _all(engine: EmbeddedEngine, generation: Generation) -> list[Delta]:
    async with aclosing(engine.generate(generation)) as deltas:
        return [delta async for delta in deltas]


def _with_engine(
    address: Path,
    blobs: LocalBlobStore,
    work: Callable[[EmbeddedEngine], Coroutine[Any, Any, None]],
) -> None:
    async def run() -> None:
        engine = EmbeddedEngine(address, blobs)
        try:
            await work(engine)
        finally:
            await engine.close()

    asyncio.run(run())


def _now(health: EngineHealth) -> EngineHealth:
    """Return the state without what was counted since the start."""
    return replace(health, adapter_loads=0, adapter_evictions=0)


async def _health_is(engine: EmbeddedEngine, wanted: EngineHealth) -> None:
    """Wait until the engine's state is `wanted`."""
    async with asyncio.timeout(20):
        while _now(await engine.health()) != wanted:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.01)


def test_an_answer_streams_token_by_token(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    tokenizer = endless_tokenizer(tiny_model)
    made = answer_of(plain_model(tiny_model), PROMPT, 12, seed=1)
    text = tokenizer.decode(made)

    async def work(engine: EmbeddedEngine) -> None:
        deltas = await _all(engine, _generation(12))
        assert "".join(delta.text for delta in deltas) == text
        assert [delta.completion_tokens for delta in deltas] == list(range(1, 13))
        assert [delta.finish_reason for delta in deltas] == [None] * 11 + ["length"]
        cold = await _all(engine, _generation(5, temperature=0.0, top_p=0.5))
        assert "".join(delta.text for delta in cold) == tokenizer.decode(
            answer_of(plain_model(tiny_model), PROMPT, 5)
        )
        character = next(c for c in text if c.isascii())
        stopped = await _all(engine, _generation(12, stop=("never", character)))
        assert "".join(delta.text for delta in stopped) == text[: text.index(character)]
        assert stopped[-1].finish_reason == "stop"

    with serving(tiny_model, address, tokenizer):
        _with_engine(address, blobs, work)


def test_log_probabilities_arrive_with_the_text_as_exact_bytes(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    tokenizer = endless_tokenizer(tiny_model)
    model = plain_model(tiny_model)
    made = answer_of(model, PROMPT, 12, seed=1)
    wanted = log_probabilities(model, PROMPT + made)[len(PROMPT) - 1 :]

    async def work(engine: EmbeddedEngine) -> None:
        deltas = await _all(engine, _generation(12, top_logprobs=3))
        told = [one for delta in deltas for one in delta.logprobs]
        assert b"".join(one.token_bytes for one in told) == b"".join(
            map(tokenizer.token_id_bytes, made)
        )
        assert [one.token for one in told] == list(map(tokenizer.token_id_text, made))
        assert [one.logprob for one in told] == pytest.approx(wanted, abs=1e-3)
        assert {len(one.top) for one in told} == {3}
        assert all(isinstance(data, bytes) for one in told for _, data, _ in one.top)
        without = await _all(engine, _generation(12))
        assert without == [replace(delta, logprobs=()) for delta in deltas]
        (character,) = tokenizer.text_ids("x")
        forced = _generation(6, logit_bias=((character, 100.0),), temperature=0.0)
        assert "".join(delta.text for delta in await _all(engine, forced)) == "xxxxxx"
        # The penalties take the bias away again: 100 - 2 * 2 - 2 is still the highest at the third.
        (other,) = tokenizer.text_ids("y")
        both = replace(
            forced,
            logit_bias=((character, 100.0), (other, 93.0)),
            presence_penalty=2.0,
            frequency_penalty=2.0,
        )
        text = "".join(delta.text for delta in await _all(engine, both))
        assert text[0] == "x"
        assert set(text) == {"x", "y"}

    with serving(tiny_model, address, tokenizer):
        _with_engine(address, blobs, work)


def test_adapters_are_sent_when_they_are_asked_for_and_many_answer_at_once(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    tokenizer = endless_tokenizer(tiny_model)
    weights = [random_adapter(tiny_model, seed) for seed in (1, 2)]
    adapters = [store(blobs, f"p/{n}", one) for n, one in enumerate(weights)]
    texts = [
        tokenizer.decode(answer_of(merged_model(tiny_model, one), PROMPT, 10, seed=1))
        for one in (None, *weights)
    ]
    assert len(set(texts)) == 3

    async def work(engine: EmbeddedEngine) -> None:
        for _ in range(2):
            answers = await asyncio.gather(
                *(_all(engine, _generation(10, adapter)) for adapter in (None, *adapters) * 3)
            )
            found = ["".join(delta.text for delta in deltas) for deltas in answers]
            assert found == texts * 3
        await _health_is(engine, EngineHealth(BASE_DIGEST, 2, 0, 0))
        await engine.unload(adapters[0], BASE_DIGEST)
        await _health_is(engine, EngineHealth(BASE_DIGEST, 1, 0, 0))
        await engine.load(adapters[0], BASE_DIGEST)
        await _health_is(engine, EngineHealth(BASE_DIGEST, 2, 0, 0))
        health = await engine.health()
        assert (health.adapter_loads, health.adapter_evictions) == (3, 0)

    with serving(tiny_model, address, tokenizer):
        _with_engine(address, blobs, work)


def test_many_cold_adapters_asked_at_once_are_each_loaded_once(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    adapters = [store(blobs, f"p/{n}", random_adapter(tiny_model, n)) for n in range(12)]

    async def work(engine: EmbeddedEngine) -> None:
        async def ask(adapter: Adapter) -> None:
            while True:
                try:
                    await _all(engine, _generation(2, adapter))
                    return
                except Overloaded:  # every place is in use just now
                    await asyncio.sleep(0.01)

        await asyncio.gather(*map(ask, adapters))
        assert (await engine.health()).adapter_loads == len(adapters)

    with serving(tiny_model, address, endless_tokenizer(tiny_model), places=3):
        _with_engine(address, blobs, work)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"1"', "true", "null"])
def test_what_is_no_number_is_refused(tiny_model: Path, address: Path, number: str) -> None:
    body = {
        "prompt_ids": PROMPT,
        "base_digest": BASE_DIGEST,
        "adapter": None,
        "max_tokens": 1,
        "temperature": 1,
        "top_p": 1,
        "stop": [],
        "seed": None,
    }
    good = {"authorization": f"Bearer {SECRET}", "content-type": "application/json"}
    with (
        serving(tiny_model, address) as served,
        httpx2.Client(base_url=served.url, trust_env=False, headers=good) as client,
    ):
        fields = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
        spoilt: list[dict[str, Any]] = [{name: "?"} for name in fields]
        spoilt += [{"logit_bias": [[3, "?"]]}, {"logit_bias": [["?", 1]]}]
        for change in spoilt:
            content = json.dumps({**body, **change}).replace('"?"', number)
            assert client.post("/generate", content=content).status_code == 422
        fine = {"logit_bias": [[3, 1], [4, -0.5]], "presence_penalty": 1, "top_logprobs": 0}
        assert client.post("/generate", json={**body, **fine}).status_code == 200


def test_a_wrong_secret_is_refused_everywhere(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    async def work(engine: EmbeddedEngine) -> None:
        with pytest.raises(Unavailable):
            await _all(engine, _generation(5))
        with pytest.raises(Unavailable):
            await engine.health()

    with serving(tiny_model, address, secret="wrong") as served:
        _with_engine(address, blobs, work)
        with httpx2.Client(base_url=served.url, trust_env=False) as client:
            for method, path in (
                ("GET", "/health"),
                ("POST", "/generate"),
                ("POST", "/score"),
                ("PUT", "/adapters"),
                ("DELETE", "/adapters"),
            ):
                for value in (None, "", "Bearer wrong", SECRET, f"Bearer {SECRET}x"):
                    headers = {} if value is None else {"authorization": value}
                    assert client.request(method, path, headers=headers).status_code == 401
            good = {"authorization": f"Bearer {SECRET}"}
            assert client.get("/health", headers=good).status_code == 200


def test_an_adapter_that_is_not_in_memory_answers_404_and_one_of_another_name_400(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    adapter = store(blobs, "p/a", random_adapter(tiny_model, 1))
    data = blobs.read("p/a/adapter_model.safetensors")
    name = adapter_name(adapter)
    assert name == f"p/a@{hashlib.sha256(data).hexdigest()}"
    with (
        serving(tiny_model, address) as served,
        httpx2.Client(
            base_url=served.url, trust_env=False, headers={"authorization": f"Bearer {SECRET}"}
        ) as client,
    ):
        body = {"token_ids": [[1, 2]], "base_digest": BASE_DIGEST, "adapter": name}
        assert client.post("/score", json=body).status_code == 404
        config = {"x-adapter-config": blobs.read("p/a/adapter_config.json").decode()}
        config["x-adapter-config"] = config["x-adapter-config"].replace("\n", "")
        for wrong in (f"p/a@{'0' * 64}", "p/a", "", f"p/b{name}x"):
            found = client.put("/adapters", params={"name": wrong}, headers=config, content=data)
            assert found.status_code == 400
        found = client.put("/adapters", params={"name": name}, headers=config, content=data)
        assert found.status_code == 200
        assert client.post("/score", json=body).status_code == 200


def test_closing_the_iterator_frees_the_row_for_the_next(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    adapter = store(blobs, "p/a", random_adapter(tiny_model, 1))

    async def work(engine: EmbeddedEngine) -> None:
        answer = engine.generate(_generation(49_000, adapter))
        assert (await anext(answer)).completion_tokens == 1
        other = asyncio.create_task(_all(engine, _generation(3)))
        await _health_is(engine, EngineHealth(BASE_DIGEST, 1, 1, 1))
        await answer.aclose()
        assert (await other)[-1].completion_tokens == 3
        await _health_is(engine, EngineHealth(BASE_DIGEST, 1, 0, 0))

    with serving(tiny_model, address, endless_tokenizer(tiny_model), rows=1, context=50_000):
        _with_engine(address, blobs, work)


def test_full_queues_and_places_answer_overloaded(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    used, other = (store(blobs, f"p/{n}", random_adapter(tiny_model, n)) for n in range(2))

    async def work(engine: EmbeddedEngine) -> None:
        running = engine.generate(_generation(49_000, used))
        await anext(running)
        with pytest.raises(Overloaded):  # the one place is in use
            await _all(engine, _generation(3, other))
        waiting = asyncio.create_task(_all(engine, _generation(3)))
        await _health_is(engine, EngineHealth(BASE_DIGEST, 1, 1, 1))
        with pytest.raises(Overloaded):  # the one place in the queue as well
            await _all(engine, _generation(3))
        await running.aclose()
        await waiting
        assert (await _all(engine, _generation(3, other)))[-1].completion_tokens == 3

    tokenizer = endless_tokenizer(tiny_model)
    with serving(tiny_model, address, tokenizer, rows=1, queue=1, places=1, context=50_000):
        _with_engine(address, blobs, work)


def test_no_engine_is_unavailable_and_a_new_one_is_found_by_its_new_address(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    adapter = store(blobs, "p/a", random_adapter(tiny_model, 1))

    async def unavailable(engine: EmbeddedEngine) -> None:
        for ask in (
            _all(engine, _generation(3)),
            engine.score([[1, 2]], BASE_DIGEST, None),
            engine.health(),
            engine.load(adapter, BASE_DIGEST),
        ):
            with pytest.raises(Unavailable) as caught:
                await ask
            assert caught.value.code == "engine_unavailable"

    async def run() -> None:
        engine = EmbeddedEngine(address, blobs)
        await unavailable(engine)  # no file yet
        for _ in range(2):
            with serving(tiny_model, address) as served:
                assert (await _all(engine, _generation(3)))[-1].finish_reason is not None
                await asyncio.to_thread(served.stop)
                await unavailable(engine)
        address.write_text("{")  # noqa: ASYNC240
        await unavailable(engine)
        await engine.close()

    asyncio.run(run())


def test_an_engine_killed_in_mid_stream_gives_no_clean_end(
    tiny_model: Path, address: Path, blobs: LocalBlobStore
) -> None:
    tests = str(Path(__file__).parents[2])
    code = "import sys; from support.networks import serve_forever; serve_forever(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": tests}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_model), str(address)], env=environment
    )
    got: list[Delta] = []

    async def work(engine: EmbeddedEngine) -> None:
        async with asyncio.timeout(60):
            while not address.exists() or not address.read_bytes().endswith(b"}"):  # noqa: ASYNC240
                assert process.poll() is None
                await asyncio.sleep(0.05)
        async with aclosing(engine.generate(_generation(49_000))) as answer:
            got.append(await anext(answer))
            process.send_signal(signal.SIGKILL)
            with pytest.raises(Unavailable) as caught:
                got.extend([delta async for delta in answer])
            assert caught.value.code == "engine_error"
        with pytest.raises(Unavailable):
            await engine.health()

    try:
        _with_engine(address, blobs, work)
    finally:
        process.kill()
        process.wait()
    assert {delta.finish_reason for delta in got} == {None}


@asynccontextmanager
async def _answering(
    address: Path, chunks: list[bytes], bodies: list[Any] | None = None
) -> AsyncIterator[None]:
    """Answer every request with these chunks of a body, as an engine would send them."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
        body = await reader.readexactly(int(length.partition(b":")[2]))
        if bodies is not None:
            bodies.append(orjson.loads(body))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for chunk in [*chunks, b""]:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address.write_text(json.dumps({"url": f"http://127.0.0.1:{port}", "secret": SECRET}))  # noqa: ASYNC240
    async with server:
        yield


@pytest.mark.parametrize("lines", [[], [orjson.dumps(Delta("a", 1)) + b"\n"]])
def test_a_stream_that_ends_without_a_reason_is_not_a_finished_answer(
    address: Path, blobs: LocalBlobStore, lines: list[bytes]
) -> None:
    async def work(engine: EmbeddedEngine) -> None:
        async with _answering(address, lines):
            with pytest.raises(Unavailable):
                await _all(engine, _generation(3))

    _with_engine(address, blobs, work)


def test_only_the_options_that_were_set_are_sent(address: Path, blobs: LocalBlobStore) -> None:
    bodies: list[Any] = []
    options: list[dict[str, Any]] = [
        {},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
        {"logit_bias": ((7, 1.5), (2, -100.0))},
        {"top_logprobs": 0},
    ]

    async def work(engine: EmbeddedEngine) -> None:
        async with _answering(
            address, [b'{"text":"","completion_tokens":1,"finish_reason":"stop"}\n'], bodies
        ):
            for option in options:
                assert await _all(engine, _generation(3, **option)) == [Delta("", 1, "stop")]

    _with_engine(address, blobs, work)
    always = bodies[0].keys()
    sent = [{name: body[name] for name in body.keys() - always} for body in bodies]
    assert sent == [*options[:3], {"logit_bias": [[7, 1.5], [2, -100.0]]}, options[4]]
    assert "top_logprobs" not in always


def test_an_error_of_the_engine_in_mid_stream_is_raised(
    address: Path, blobs: LocalBlobStore
) -> None:
    async def work(engine: EmbeddedEngine) -> None:
        lines = [orjson.dumps(Delta("a", 1)) + b"\n", b'{"error":"it broke"}\n']
        async with _answering(address, lines):
            with pytest.raises(Unavailable, match="it broke"):
                await _all(engine, _generation(3))

    _with_engine(address, blobs, work)


def test_a_place_in_the_queue_that_was_lost_to_another_tenant_is_answered_overloaded(
    address: Path, blobs: LocalBlobStore, tiny_model: Path
) -> None:
    async def work(engine: EmbeddedEngine) -> None:
        busy = engine.generate(_generation(40_000))
        await anext(busy)
        flood = [asyncio.ensure_future(_all(engine, _generation(3))) for _ in range(2)]
        while (await engine.health()).rows_waiting < 2:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.01)
        late = asyncio.ensure_future(_all(engine, _generation(3, tenant="another")))
        while not any(one.done() for one in flood):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        await busy.aclose()
        results = await asyncio.gather(*flood, return_exceptions=True)
        assert sorted(isinstance(one, Overloaded) for one in results) == [False, True]
        assert (await late)[-1].finish_reason == "length"

    tokenizer = endless_tokenizer(tiny_model)
    with serving(tiny_model, address, tokenizer, rows=1, queue=2, context=50_000):
        _with_engine(address, blobs, work)


def test_tokens_used_again_are_told_to_their_tenant_only(
    address: Path, blobs: LocalBlobStore, tiny_model: Path
) -> None:
    prompt = tokens(40, 0)

    async def work(engine: EmbeddedEngine) -> None:
        told = []
        for tenant in ("a", "a", "b", "", ""):
            asked = replace(_generation(3, tenant=tenant), prompt_ids=prompt)
            told.append({delta.cached_tokens for delta in await _all(engine, asked)})
        assert told == [{0}, {39}, {0}, {0}, {0}]
        for tenant in ("c", "d"):
            likely = await engine.likelihoods(prompt, BASE_DIGEST, None, 0, tenant=tenant)
            assert len(likely) == 39
        asked = replace(_generation(3, tenant="c"), prompt_ids=prompt)
        assert (await _all(engine, asked))[0].cached_tokens == 39

    with serving(tiny_model, address, endless_tokenizer(tiny_model)):
        _with_engine(address, blobs, work)


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029", "\x85", "\n\r\x0b\x0c\x1c\x1d\x1e", "€😀"])
def test_text_with_any_line_break_arrives_as_it_was_sent(
    address: Path, blobs: LocalBlobStore, text: str
) -> None:
    sent = [Delta(text, 1), Delta("", 2, "stop")]

    async def work(engine: EmbeddedEngine) -> None:
        body = b"".join(orjson.dumps(delta) + b"\n" for delta in sent)
        async with _answering(address, [body[:20], body[20:]]):
            assert await _all(engine, _generation(3)) == sent

    _with_engine(address, blobs, work)
