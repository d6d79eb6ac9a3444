"""Served models are the trained ones: on real weights, alone and in batches mixed with others.

What is asserted is the publishing check's tolerance; how far texts are the same is told.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightly.conftest import Figures, arithmetic, build_native, in_any_batch_alike
from support import agreement
from support.agreement import Made, Text
from support.networks import BASE_DIGEST, PEFT_WARNING, random_adapter, serving, store, tokens
from support.server import Server
from support_messages import SHORT_PROMPT, Example, make
from tunery.datasets.rendering import ChatRenderer
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.jobs import Adapter, EpochCheckpoint, Hyperparameters
from tunery.domain.models import BaseModel
from tunery.domain.ports.engine import Engine, Generation
from tunery.domain.ports.training import RunFailed, TrainingReport, TrainingRun
from tunery.inference.embedded import EmbeddedEngine
from tunery.services.publishing import Proof, Tolerance, compare
from tunery.settings import DEFAULT_BASE, Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.catalogue import Catalogue
from tunery.training.cache_folder import CacheFolder
from tunery.training.loop import LocalTrainer
from tunery.wiring.parts import build_parts
from tunery.wiring.storage import open_database

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

HELD_OUT, TRAINED_ON, SAMPLED = 200, 96, 80
ROWS, ANSWER_TOKENS = 16, 24
ONE_BY_ONE, REFERENCE_NATS = 8, 1e-4  # references are computed in batches, and held so many times
REAL = {
    "TUNERY_ENGINE__THREADS": "0",
    "TUNERY_ENGINE__NATIVE": "auto",  # as it is served
    "TUNERY_ENGINE__ROWS": str(ROWS),
    "TUNERY_LEASE_S": "15",
}


def _order(example: Example) -> str:
    return json.loads(example.answer)["order"] or "none"


def _intent(example: Example) -> str:
    return str(json.loads(example.answer)["intent"])


# What the tuned models are taught to answer; the base is asked for the first.
TASKS: dict[str, Callable[[Example], str]] = {
    "ticket": lambda example: example.answer,
    "order": _order,
    "intent": _intent,
}
KINDS = ("base", *TASKS)


@dataclass(frozen=True, slots=True)
class Said:
    """What the engine said of everything: alone, and among others."""

    alone: list[list[float]]
    mixed: list[list[float]]
    greedy_alone: list[Made]
    greedy_mixed: list[Made]
    sampled_alone: list[Made]
    sampled_mixed: list[Made]


@pytest.fixture(scope="module")
def models() -> Path:
    """Return the folder of real base models."""
    return Settings(models=Path(os.environ.get("TUNERY_MODELS", Settings().models))).models_path


def _turns(example: Example, task: Callable[[Example], str]) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": SHORT_PROMPT},
        {"role": "user", "content": example.message},
        {"role": "assistant", "content": task(example)},
    ]


def _tuned(blobs: LocalBlobStore, folder: Path, base: BaseModel, name: str, seed: int) -> Adapter:
    """Train an adapter with the product's own trainer: two epochs of a short file."""
    lines = [{"messages": _turns(e, TASKS[name])} for e in make("train", TRAINED_ON, seed)]
    blobs.put(f"{name}/train", "\n".join(map(json.dumps, lines)).encode())
    found: list[Adapter] = []

    def hear(report: TrainingReport) -> None:
        assert not isinstance(report, RunFailed), report
        if isinstance(report, EpochCheckpoint):
            found.append(report.adapter)

    threads, caches = os.cpu_count() or 1, CacheFolder(folder / "tokens", 2**30)
    trainer = LocalTrainer(blobs, Path(base.path), base.learning_rate, threads, 1e9, caches)
    numbers = Hyperparameters(n_epochs=2, batch_size=8, learning_rate_multiplier=1.0)
    run = TrainingRun(
        name, base.name, base.digest, f"{name}/train", None, numbers, seed, f"{name}/run"
    )
    trainer.train(run, hear)
    return found[-1]


def _greedy(prompt: Sequence[int], adapter: Adapter | None, digest: str) -> Generation:
    return Generation(
        prompt, digest, adapter, ANSWER_TOKENS, temperature=0.0, top_logprobs=0, tenant="nightly"
    )


async def _say(
    engine: Engine, digest: str, texts: Sequence[Text], wanted: Sequence[Generation]
) -> Said:
    sampled = agreement.seeded(wanted[:SAMPLED])
    return Said(
        await agreement.score(engine, digest, texts, 1),
        await agreement.score(engine, digest, texts, ROWS),
        await agreement.generate(engine, wanted, 1),
        await agreement.generate(engine, wanted, ROWS),
        await agreement.generate(engine, sampled, 1),
        await agreement.generate(engine, sampled, ROWS),
    )


def _told(proof: Proof) -> str:
    return f"mean {proof.mean:.4f}, max {proof.maximum:.4f} over {proof.tokens} tokens"


def test_served_log_probabilities_are_those_of_the_reference(
    models: Path, tmp_path: Path, figures: Figures
) -> None:
    base = Catalogue(models).get(DEFAULT_BASE)
    assert base is not None, "run `tunery models pull`"
    settings = Settings(data=tmp_path / "data", models=models, base=DEFAULT_BASE)
    blobs = LocalBlobStore(settings.data)
    build_native(models)
    started = time.monotonic()
    adapters = [None, *(_tuned(blobs, tmp_path, base, name, figures.seed) for name in TASKS)]
    renderer = ChatRenderer.load(Path(base.path))
    held_out = make("test", HELD_OUT, figures.seed)
    tasks = [TASKS["ticket"], *TASKS.values()]
    texts = [  # the models take turns, so that neighbours in a batch are of different ones
        Text(tuple(renderer.example(_turns(example, task)).token_ids), adapter)
        for example in held_out
        for task, adapter in zip(tasks, adapters, strict=True)
    ]
    wanted = [
        _greedy(renderer.prompt(_turns(example, TASKS["ticket"])[:-1]), adapter, base.digest)
        for number, example in enumerate(held_out)
        for adapter in [adapters[number % len(adapters)]]
    ]

    async def ask() -> Said:
        parts = build_parts(settings, open_database(settings), blobs, supervised=False)
        said = await _say(parts.engine, base.digest, texts, wanted)
        await parts.engine.close()
        return said

    trained = time.monotonic()
    with Server(tmp_path, models, base=DEFAULT_BASE, **REAL) as server:
        said, computes_in = asyncio.run(ask()), arithmetic(server)
    asked = time.monotonic()
    references = agreement.References(Path(base.path), blobs)
    expected = references.of(texts)
    apart = references.apart_alone(texts[:ONE_BY_ONE])  # two of each model
    assert apart < REFERENCE_NATS
    token_ids = [text.ids for text in texts]
    proofs = {
        f"{kind}, {how}": compare(
            scores[place :: len(KINDS)],
            expected[place :: len(KINDS)],
            token_ids[place :: len(KINDS)],
        )
        for place, kind in enumerate(KINDS)
        for how, scores in (("alone", said.alone), ("mixed", said.mixed))
    }
    for how, made in (("alone", said.greedy_alone), ("mixed", said.greedy_mixed)):
        proofs[f"answers' own tokens, {how}"] = agreement.made_proof(
            references, renderer.tokenizer, wanted, made
        )
    between = compare(said.alone, said.mixed, token_ids)
    limits = settings.training
    tolerance = Tolerance(limits.proof_mean, limits.proof_max, HELD_OUT)
    figures.keep(
        "agreement",
        {row: _told(proof) for row, proof in proofs.items()}
        | {"alone against mixed": _told(between)}
        | {"arithmetic": computes_in}
        | {"references, batched or not": f"max {apart:.1e}"}
        | {"tolerance": f"mean {tolerance.mean}, max {tolerance.maximum}"}
        | {"greedy, alone = mixed": _same(said.greedy_alone, said.greedy_mixed)}
        | {"sampled, alone = mixed": _same(said.sampled_alone, said.sampled_mixed)}
        | {"seconds training": round(trained - started), "seconds asking": round(asked - trained)}
        | {"seconds of references": round(time.monotonic() - asked)},
    )
    assert [row for row, proof in proofs.items() if not proof.within(tolerance)] == []
    if in_any_batch_alike(computes_in, models):
        assert between.maximum == 0.0
        assert [made.text for made in said.greedy_mixed] == [m.text for m in said.greedy_alone]
        assert [made.text for made in said.sampled_mixed] == [m.text for m in said.sampled_alone]


def _same(one: Sequence[Made], other: Sequence[Made]) -> str:
    return f"{agreement.equal_texts(one, other)} of {len(one)} texts"


def test_in_float32_a_seed_gives_one_text_whatever_else_is_in_the_batch(
    tiny_model: Path, tmp_path: Path, figures: Figures
) -> None:
    blobs = LocalBlobStore(tmp_path / "store")
    adapters = [
        None,
        *(store(blobs, f"p/{n}", random_adapter(tiny_model, n)) for n in range(len(TASKS))),
    ]
    wanted = [
        _greedy(tokens(20 + 3 * number, number), adapters[number % len(adapters)], BASE_DIGEST)
        for number in range(SAMPLED)
    ]

    async def ask() -> Said:
        engine = EmbeddedEngine(tmp_path / "engine.json", blobs)
        said = await _say(engine, BASE_DIGEST, [], wanted)
        await engine.close()
        return said

    with serving(tiny_model, tmp_path / "engine.json", rows=ROWS, queue=SAMPLED, places=4):
        said = asyncio.run(ask())
    figures.keep(
        "seeds_in_float32",
        {"greedy, alone = mixed": _same(said.greedy_alone, said.greedy_mixed)}
        | {"sampled, alone = mixed": _same(said.sampled_alone, said.sampled_mixed)},
    )
    made_of = [*said.greedy_mixed, *said.sampled_mixed]
    references = agreement.References(tiny_model, blobs)
    proof = agreement.made_proof(references, TextTokenizer(tiny_model), [*wanted, *wanted], made_of)
    assert proof.maximum < 1e-3
    assert proof.tokens > SAMPLED * ANSWER_TOKENS
    assert len({made.text for made in said.sampled_alone}) > SAMPLED / 2
    assert agreement.equal_texts(said.sampled_alone, said.sampled_mixed) == SAMPLED
