"""No answer from a wrong adapter and none across tenants, while models come and go all the time."""

import itertools
import random
import time
from pathlib import Path

import pytest

from nightly.conftest import Figures, arithmetic, build_native, in_any_batch_alike
from support.betraying import code_word, publish, train
from support.isolation import Book, Load, ask_many, delete, open_projects
from support.server import BASE, Server
from tunery.storage.blobs import LocalBlobStore

# A job's three last epochs are models, each of weights of its own: 18 to begin with.
PROJECTS, JOBS, PLACES, CLIENTS = 4, 6, 6, 32
FAULTS = ("wrong adapter", "crossed tenant", "wrong fingerprint", "unexpected errors")
MANY, ASKED = 1_000, 200
NATIVE = {"TUNERY_ENGINE__NATIVE": "auto"}  # as it is served


def test_every_answer_is_the_models_own(
    models: Path, tmp_path: Path, figures: Figures, pytestconfig: pytest.Config
) -> None:
    requests = pytestconfig.getoption("--requests")
    build_native(models)
    started = time.monotonic()
    with Server(tmp_path, models, TUNERY_ENGINE__ADAPTERS=str(PLACES), **NATIVE) as server:
        book = Book(open_projects(server, PROJECTS))
        book.add(None, BASE, None)

        def published(number: int) -> None:
            owner = number % PROJECTS
            *checkpoints, name = publish(book.projects[owner].client, code_word(number))
            for checkpoint in checkpoints:
                book.add(owner, checkpoint, None)
            book.add(owner, name, code_word(number))
            load.count("jobs published")

        def come_and_go() -> None:
            rng = random.Random(f"{figures.seed} publisher")
            for number in itertools.count(JOBS):
                if load.counts["requests"] >= requests:
                    return
                published(number)
                for _ in range(3):  # as many as have come
                    leaving = book.some(
                        rng, lambda known: known.owner is not None and not known.ending
                    )
                    assert leaving is not None
                    delete(book, leaving)
                    load.count("models deleted")

        load = Load(book, seed=figures.seed, requests=requests)
        for number in range(JOBS):
            published(number)
        before = server.engine_health()
        asking = time.monotonic()
        load.run(CLIENTS, come_and_go)
        now = time.monotonic()
        after, computes_in = server.engine_health(), arithmetic(server)
    counts = load.counts
    figures.keep(
        "isolation",
        {fault: counts[fault] for fault in FAULTS}
        | dict(sorted(counts.items()))
        | {"loads": after["adapter_loads"] - before["adapter_loads"]}
        | {"evictions": after["adapter_evictions"] - before["adapter_evictions"]}
        | {"places": PLACES, "models known": len(book.all()), "clients": CLIENTS}
        | {"arithmetic": computes_in}
        | {"farthest right portrait, nats": load.farthest}
        | {"seconds asking": round(now - asking), "seconds in all": round(now - started)}
        | {"told": load.told},
    )
    assert load.told == []
    if in_any_batch_alike(computes_in, models):
        assert load.farthest == 0.0
    assert after["adapter_evictions"] - before["adapter_evictions"] > PLACES


def test_a_thousand_models_answer_with_few_places(
    models: Path, tiny_model: Path, tmp_path: Path, figures: Figures
) -> None:
    build_native(models)
    with Server(tmp_path, models, TUNERY_ENGINE__ADAPTERS="4", **NATIVE) as server:
        blobs = LocalBlobStore(server.data)
        adapters = [
            (code_word(n), train(blobs, tiny_model, code_word(n), f"trained/{n}")[-1])
            for n in range(8)
        ]
        counts = ask_many(server, adapters, models=MANY, asked=ASKED, seed=figures.seed)
        loads, computes_in = server.engine_health()["adapter_loads"], arithmetic(server)
    figures.keep("thousand_models", counts | {"loads": loads, "arithmetic": computes_in})
    assert counts["right word"] == counts["right fingerprint"] == ASKED
