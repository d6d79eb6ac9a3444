"""A server on the tiny model that the tests of this folder share, and what stands on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from support.receivers import Receiver, receiving
from support.server import (
    BASE,
    Server,
    Tuned,
    chat_lines,
    make_catalogue,
    method,
    tuned_model,
    upload,
)


@pytest.fixture(scope="session")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder that knows the tiny model."""
    return make_catalogue(tmp_path_factory.mktemp("catalogue"), tiny_model)


@pytest.fixture(scope="session")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that tests share, which may send to loopback; it is not to be harmed."""
    settings = {"TUNERY_WEBHOOKS__ALLOW_PRIVATE": "true"}
    with Server(tmp_path_factory.mktemp("shared"), models, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """Return a receiver of webhooks that takes everything."""
    with receiving() as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> OpenAI:
    """Return an SDK client of the shared server's first project."""
    return server.client()


@pytest.fixture(scope="session")
def tuned(client: OpenAI) -> Tuned:
    """Return a finished job: its model answers "yes"."""
    training = upload(client, chat_lines(12))
    validation = upload(client, chat_lines(3), "valid.jsonl")
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training.id,
        validation_file=validation.id,
        method=method(n_epochs=4, batch_size=4, learning_rate_multiplier=1.5),
    )
    name = tuned_model(client, job.id)
    return Tuned(training, validation, job, client.fine_tuning.jobs.retrieve(job.id), name)
