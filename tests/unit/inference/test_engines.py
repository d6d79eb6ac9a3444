"""What every Engine does alike: the embedded one over its own server, vLLM's over a recorded one.

The answers are held against transformers in float32.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support.networks import (
    BASE_DIGEST,
    VOCABULARY,
    answer_of,
    endless_tokenizer,
    log_probabilities,
    logits_of,
    merged_model,
    plain_model,
    serving,
    store,
    tokens,
)
from support.tiny import make_tiny_model
from support.vllm import HEAD_DIM, uniform_adapter, vllm_engine, vllm_wire
from tunery.domain.errors import Overloaded, TuneryError, Unavailable
from tunery.domain.jobs import Adapter
from tunery.domain.ports.engine import Delta, Engine, Generation
from tunery.inference.embedded import EmbeddedEngine
from tunery.storage.blobs import LocalBlobStore

PROMPT = tokens(6, 0)
PLAIN = Generation(PROMPT, BASE_DIGEST, None, 12, temperature=0.0)


@dataclass(frozen=True)
class Tried:
    """An engine under test, made anew for each run in its event loop."""

    model: Path
    blobs: LocalBlobStore
    make: Callable[[], EmbeddedEngine | Any]

    def run(self, work: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
        async def within() -> None:
            async with self._engine() as engine:
                await work(engine)

        asyncio.run(within())

    @asynccontextmanager
    async def _engine(self) -> AsyncIterator[Engine]:
        engine = self.make()
        try:
            yield engine
        finally:
            await engine.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("wide"), head_dim=HEAD_DIM)


@pytest.fixture(params=["embedded", "vllm"])
def tried(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[Tried]:
    with {"embedded": _embedded, "vllm": _vllm}[request.param](request, model, tmp_path) as one:
        yield one


@contextmanager
def _embedded(request: pytest.FixtureRequest, model: Path, folder: Path) -> Iterator[Tried]:
    address, blobs = folder / "engine.json", LocalBlobStore(folder / "blobs")
    with serving(model, address, endless_tokenizer(model)):
        yield Tried(model, blobs, lambda: EmbeddedEngine(address, blobs))


@contextmanager
def _vllm(request: pytest.FixtureRequest, model: Path, folder: Path) -> Iterator[Tried]:
    adapters, blobs = folder / "adapters", LocalBlobStore(folder / "blobs")
    name = request.node.name.replace("[vllm", "").strip("]").replace("-", "_")
    with vllm_wire(name, adapters) as url:
        yield Tried(model, blobs, lambda: vllm_engine(url, model, adapters, blobs))


async def _all(engine: Engine, generation: Generation) -> list[Delta]:
    async with aclosing(engine.generate(generation)) as deltas:
        return [delta async for delta in deltas]


async def _text(engine: Engine, generation: Generation) -> str:
    return "".join(delta.text for delta in await _all(engine, generation))


def test_an_answer_streams_to_its_end(tried: Tried) -> None:
    text = endless_tokenizer(tried.model).decode(answer_of(plain_model(tried.model), PROMPT, 12))

    async def work(engine: Engine) -> None:
        deltas = await _all(engine, PLAIN)
        assert "".join(delta.text for delta in deltas) == text
        counts = [delta.completion_tokens for delta in deltas]
        assert counts == sorted(counts)
        assert counts[-1] == 12
        assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
        assert deltas[-1].finish_reason == "length"
        assert await _text(engine, replace(PLAIN, temperature=1.0, top_p=0.0)) == text

    tried.run(work)


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(tried: Tried) -> None:
    tokenizer = endless_tokenizer(tried.model)
    made = answer_of(plain_model(tried.model), PROMPT, 12)
    text = tokenizer.decode(made)
    stop = text[6:8]  # two tokens: a byte is one here

    async def work(engine: Engine) -> None:
        deltas = await _all(engine, replace(PLAIN, stop=("never", stop)))
        assert "".join(delta.text for delta in deltas) == text[: text.index(stop)]
        assert deltas[-1].finish_reason == "stop"
        assert deltas[-1].completion_tokens == text.index(stop) + len(stop)

    assert text.isascii()
    assert text.index(stop) > 0
    tried.run(work)


def test_a_seed_makes_sampling_repeatable(tried: Tried) -> None:
    async def work(engine: Engine) -> None:
        asked = replace(PLAIN, temperature=1.5, top_p=0.9)
        one, other, third = [await _text(engine, replace(asked, seed=seed)) for seed in (7, 8, 7)]
        assert one == third
        assert one != other

    tried.run(work)


def test_log_probabilities_arrive_with_the_text_as_exact_bytes(tried: Tried) -> None:
    tokenizer, model = endless_tokenizer(tried.model), plain_model(tried.model)
    made = answer_of(model, PROMPT, 12)
    wanted = log_probabilities(model, PROMPT + made)[len(PROMPT) - 1 :]

    async def work(engine: Engine) -> None:
        told = [
            one
            for delta in await _all(engine, replace(PLAIN, top_logprobs=3))
            for one in delta.logprobs
        ]
        assert [one.token for one in told] == list(map(tokenizer.token_id_text, made))
        assert [one.token_bytes for one in told] == list(map(tokenizer.token_id_bytes, made))
        assert [one.logprob for one in told] == pytest.approx(wanted, abs=1e-3)
        assert {len(one.top) for one in told} == {3}
        for one in told:  # greedy: the token itself is the likeliest
            assert one.top[0] == (one.token, one.token_bytes, one.logprob)
            assert [value for _, _, value in one.top] == sorted(
                (value for _, _, value in one.top), reverse=True
            )
        bare = await _all(engine, replace(PLAIN, top_logprobs=0))
        assert [one.top for delta in bare for one in delta.logprobs] == [()] * 12
        assert not any(delta.logprobs for delta in await _all(engine, PLAIN))

    tried.run(work)


def test_bias_and_penalties_change_what_is_likeliest(tried: Tried) -> None:
    tokenizer = endless_tokenizer(tried.model)
    (x,), (y,) = tokenizer.text_ids("x"), tokenizer.text_ids("y")

    async def work(engine: Engine) -> None:
        forced = replace(PLAIN, max_tokens=6, logit_bias=((x, 100.0),))
        assert await _text(engine, forced) == "xxxxxx"
        banned = replace(PLAIN, max_tokens=6, logit_bias=((x, 100.0), (y, -100.0)))
        assert await _text(engine, banned) == "xxxxxx"
        # Between two tokens far above all others, the penalties make the answer change sides.
        both = replace(
            forced,
            logit_bias=((x, 100.0), (y, 93.0)),
            presence_penalty=2.0,
            frequency_penalty=2.0,
        )
        text = await _text(engine, both)
        assert text[0] == "x"
        assert set(text) == {"x", "y"}

    tried.run(work)


def test_adapters_are_loaded_when_they_are_asked_for_and_many_answer_at_once(tried: Tried) -> None:
    tokenizer = endless_tokenizer(tried.model)
    weights = [uniform_adapter(tried.model, seed) for seed in (1, 2)]
    adapters = [store(tried.blobs, f"p/{n}", one) for n, one in enumerate(weights)]
    texts = [
        tokenizer.decode(answer_of(merged_model(tried.model, one), PROMPT, 12))
        for one in (None, *weights)
    ]
    assert len(set(texts)) == 3

    async def work(engine: Engine) -> None:
        asked: list[Adapter | None] = [None, *adapters]
        found = await asyncio.gather(
            *(_text(engine, replace(PLAIN, adapter=adapter)) for adapter in asked * 2)
        )
        assert found == texts * 2
        assert (await engine.health()).adapters_resident == 2
        await engine.unload(adapters[0], BASE_DIGEST)
        assert (await engine.health()).adapters_resident == 1
        await engine.load(adapters[0], BASE_DIGEST)
        assert (await engine.health()).adapters_resident == 2
        assert await _text(engine, replace(PLAIN, adapter=adapters[0])) == texts[1]

    tried.run(work)


def test_scores_are_those_of_base_and_adapter(tried: Tried) -> None:
    weights = uniform_adapter(tried.model, 1)
    adapter = store(tried.blobs, "p/a", weights)
    texts = [tokens(40, 1), tokens(2, 2), tokens(9, 3)]

    async def work(engine: Engine) -> None:
        for one, changed in ((None, None), (adapter, weights)):
            reference = merged_model(tried.model, changed)
            scores = await engine.score(texts, BASE_DIGEST, one)
            for ids, found in zip(texts, scores, strict=True):
                assert found == pytest.approx(log_probabilities(reference, ids), abs=1e-3)

    tried.run(work)


def test_likelihoods_tell_of_the_likeliest_in_each_place(tried: Tried) -> None:
    tokenizer, model = endless_tokenizer(tried.model), plain_model(tried.model)
    ids = tokens(9, 3)
    likeliest = logits_of(model, ids)[:-1].argmax(-1).tolist()

    async def work(engine: Engine) -> None:
        told = await engine.likelihoods(ids, BASE_DIGEST, None, 2, tenant="")
        assert [one.token for one in told] == list(map(tokenizer.token_id_text, ids[1:]))
        wanted = log_probabilities(model, ids)
        assert [one.logprob for one in told] == pytest.approx(wanted, abs=1e-3)
        assert [one.top[0][0] for one in told] == list(map(tokenizer.token_id_text, likeliest))
        assert {len(one.top) for one in told} == {2}

    tried.run(work)


def _nameless(adapter: Adapter, blobs: LocalBlobStore) -> None:
    data = blobs.read(f"{adapter.key}/adapter_model.safetensors")
    blobs.put(f"{adapter.key}/adapter_model.safetensors", data[:-1] + bytes([data[-1] ^ 1]))


def _no_adapter(adapter: Adapter, blobs: LocalBlobStore) -> None:
    config = json.loads(blobs.read(f"{adapter.key}/adapter_config.json"))
    blobs.put(f"{adapter.key}/adapter_config.json", json.dumps({**config, "r": 99}).encode())


def _gone(adapter: Adapter, blobs: LocalBlobStore) -> None:
    blobs.delete(f"{adapter.key}/adapter_config.json")


@pytest.mark.parametrize(
    ("spoil", "says", "code"),
    [
        pytest.param(_nameless, "digest", "engine_error", id="nameless"),
        pytest.param(_no_adapter, "rank 99", "engine_error", id="rank"),
        pytest.param(_gone, "missing", "model_files_missing", id="gone"),
    ],
)
def test_spoiled_adapter_files_are_refused_and_nothing_stays(
    tried: Tried, spoil: Callable[[Adapter, LocalBlobStore], None], says: str, code: str
) -> None:
    adapter = store(tried.blobs, "p/a", uniform_adapter(tried.model, 1))
    spoil(adapter, tried.blobs)

    async def work(engine: Engine) -> None:
        with pytest.raises(TuneryError, match=f"(?i){says}") as caught:
            await _all(engine, replace(PLAIN, adapter=adapter))
        assert caught.value.code == code
        assert (await engine.health()).adapters_resident == 0

    tried.run(work)


def test_what_does_not_fit_the_engine_is_refused(tried: Tried) -> None:
    refused = [
        {"base_digest": "c" * 64},
        {"prompt_ids": [3, VOCABULARY]},
        {"prompt_ids": [-1, 3]},
        {"prompt_ids": []},
        {"max_tokens": 512 - len(PROMPT) + 1},
        {"max_tokens": 0},
        {"temperature": 2.1},
        {"temperature": -0.1},
        {"top_p": 1.1},
        {"presence_penalty": 2.1},
        {"frequency_penalty": -2.1},
        {"top_logprobs": 21},
        {"top_logprobs": -1},
        {"seed": 2**63},
        {"stop": ("x",) * 17},
        {"logit_bias": ((3, 100.5),)},
        {"logit_bias": ((-1, 1.0),)},
        {"logit_bias": ((3, 1.0), (3, 2.0))},
        {"logit_bias": ((3, 1.0), (VOCABULARY, 1.0))},
        {"logit_bias": tuple((3, 1.0) for _ in range(1025))},
    ]

    async def work(engine: Engine) -> None:
        for change in refused:
            with pytest.raises(TuneryError, match="refused") as caught:
                await _all(engine, replace(PLAIN, **change))  # type: ignore[arg-type]
            assert not isinstance(caught.value, Unavailable | Overloaded), change
        for ids, digest in (([1, VOCABULARY], BASE_DIGEST), ([1], BASE_DIGEST), ([1, 2], "c" * 64)):
            with pytest.raises(TuneryError, match="refused"):
                await engine.score([[1, 2, 3], ids], digest, None)
        last = (await _all(engine, replace(PLAIN, max_tokens=512 - len(PROMPT))))[-1]
        assert last.completion_tokens == 512 - len(PROMPT)  # the context is used to its end

    tried.run(work)
