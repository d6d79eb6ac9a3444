"""A model is never answered by another's adapter: clients, new models and deletes all at once.

The short form; tests/nightly has the whole, with models that real jobs publish.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.betraying import code_word, register, train
from support.isolation import Book, Load, ask_many, delete, open_projects
from support.server import BASE, Server
from tunery.domain.jobs import Adapter
from tunery.storage.blobs import LocalBlobStore

PROJECTS, MODELS, PLACES = 2, 3, 3
REQUESTS, CLIENTS, SEED = 250, 8, 34
Trained = list[list[Adapter]]


@pytest.fixture(scope="module")
def small(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server with fewer places than there are models."""
    folder = tmp_path_factory.mktemp("small")
    with Server(folder, models, TUNERY_ENGINE__ADAPTERS=str(PLACES)) as running:
        yield running


@pytest.fixture(scope="module")
def trained(small: Server, tiny_model: Path) -> Trained:
    """Return the epochs' adapters of four runs, each of a word of its own."""
    blobs = LocalBlobStore(small.data)
    return [
        train(blobs, tiny_model, code_word(number), f"trained/{number}")
        for number in range(MODELS + 1)
    ]


def test_many_models_answer_with_few_places(small: Server, trained: Trained) -> None:
    adapters = [(code_word(number), epochs[-1]) for number, epochs in enumerate(trained)]
    before = small.engine_health()["adapter_loads"]
    counts = ask_many(small, adapters, models=60, asked=30, seed=SEED)
    assert counts["right word"] == counts["right fingerprint"] == 30
    health = small.engine_health()
    assert health["adapters_resident"] == PLACES
    assert health["adapter_loads"] - before >= 30  # each of them was cold


def test_every_answer_is_the_models_own_while_models_come_and_go(
    small: Server, trained: Trained
) -> None:
    book = Book(open_projects(small, PROJECTS))
    book.add(None, BASE, None)

    def registered(number: int) -> None:
        owner = number % PROJECTS
        kept = trained[number][-2:] if number == 0 else trained[number][-1:]
        *checkpoints, name = register(small, book.projects[owner].tenant, kept, number)
        for checkpoint in checkpoints:
            book.add(owner, checkpoint, None)
        book.add(owner, name, code_word(number))

    for number in range(MODELS):
        registered(number)

    def come_and_go() -> None:
        leaving = book.some(random.Random(SEED), lambda known: known.owner == 1)
        assert leaving is not None
        delete(book, leaving)
        registered(MODELS)

    load = Load(book, seed=SEED, requests=REQUESTS)
    load.run(CLIENTS, come_and_go)
    assert load.told == []
    health = small.engine_health()
    assert health["adapter_evictions"] == health["adapter_loads"] - PLACES > MODELS
    assert min(load.counts[kind] for kind in ("streamed", "whole", "base", "tuned")) > 10
    assert min(load.counts[kind] for kind in ("another's", "deleted", "portraits")) > 0
