"""A model is never answered by another's adapter: clients, publishing and deletes all at once.

The short form; tests/nightly has the whole.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.betraying import code_word, register, train
from support.isolation import Book, Load, delete, open_projects
from support.server import BASE, Server
from tunery.domain.jobs import Adapter
from tunery.storage.blobs import LocalBlobStore

PROJECTS, MODELS, SPARE, PLACES = 2, 3, 1, 3
REQUESTS, CLIENTS, SEED = 250, 8, 34


@pytest.fixture
def small(models: Path, tmp_path: Path) -> Iterator[Server]:
    """Return a server with fewer places than there are models."""
    with Server(tmp_path, models, TUNERY_ENGINE__ADAPTERS=str(PLACES)) as running:
        yield running


def test_every_answer_is_the_models_own_while_models_come_and_go(
    small: Server, tiny_model: Path
) -> None:
    book = Book(open_projects(small, PROJECTS))
    book.add(None, BASE, None)
    blobs = LocalBlobStore(small.data)

    def trained(number: int) -> list[Adapter]:
        tenant = book.projects[number % PROJECTS].tenant
        prefix = f"{tenant.project_id}/jobs/betraying-{number}"
        return train(blobs, tiny_model, code_word(number), prefix)

    def registered(number: int, adapters: list[Adapter]) -> None:
        owner = number % PROJECTS
        kept = adapters[-2:] if number == 0 else adapters[-1:]  # of one, a checkpoint as well
        *checkpoints, name = register(small, book.projects[owner].tenant, kept, number)
        for checkpoint in checkpoints:
            book.add(owner, checkpoint, None)
        book.add(owner, name, code_word(number))

    first = [trained(number) for number in range(MODELS + SPARE)]
    for number in range(MODELS):
        registered(number, first[number])

    def come_and_go() -> None:
        rng = random.Random(SEED)
        for number in range(MODELS, MODELS + SPARE):
            leaving = book.some(rng, lambda k, owner=number % PROJECTS: k.owner == owner)  # type: ignore[misc]
            assert leaving is not None
            delete(book, leaving)
            registered(number, first[number])

    load = Load(book, seed=SEED, requests=REQUESTS)
    load.run(CLIENTS, come_and_go)
    assert load.told == []
    health = small.engine_health()
    assert (health["adapters_resident"], health["rows_active"]) == (PLACES, 0)
    assert health["adapter_evictions"] == health["adapter_loads"] - PLACES > MODELS
    assert min(load.counts[kind] for kind in ("streamed", "whole", "base", "tuned")) > 10
    assert min(load.counts[kind] for kind in ("another's", "deleted", "portraits")) > 0
