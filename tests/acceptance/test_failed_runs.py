"""Jobs that cannot be trained fail by name and say what to do; worker and service work on."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from support.server import (
    BASE,
    Server,
    chat_lines,
    finished,
    last_step,
    make_catalogue,
    method,
    tuned_model,
    upload,
)
from support.tiny import make_tiny_model
from tunery.storage.catalogue import Catalogue

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failed")


@pytest.fixture(scope="module")
def server(folder: Path, tiny_model: Path) -> Iterator[Server]:
    """Return a server with a base whose files may be taken away, and one that learns nothing."""
    models = make_catalogue(folder, tiny_model)
    wild = make_tiny_model(folder / "wild", seed=1)
    Catalogue(models).add("wild", wild, aliases=(), learning_rate=1e30)
    with Server(folder, models) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return server.client()


@pytest.fixture(scope="module")
def training_file(client: OpenAI) -> str:
    return upload(client, chat_lines(10)).id


def run(client: OpenAI, training_file: str, model: str, **numbers: float) -> FineTuningJob:
    job = client.fine_tuning.jobs.create(
        model=model, training_file=training_file, method=method(**numbers)
    )
    return finished(client, job.id)


def test_a_run_that_diverges_stops_within_ten_steps_and_the_next_job_is_trained(
    server: Server, client: OpenAI, training_file: str
) -> None:
    worker = server.child("work")
    job = run(client, training_file, "wild", n_epochs=2, batch_size=1, learning_rate_multiplier=1)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "non_finite_loss"
    assert "Set a lower learning_rate_multiplier" in job.error.message
    assert last_step(client, job.id) < 10
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == []  # none of them is good
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=training_file, method=method(n_epochs=1, batch_size=5)
    )
    tuned_model(client, job.id)
    assert worker.lives


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_base_that_has_lost_a_file_fails_its_jobs_by_that_files_name(
    client: OpenAI, training_file: str, folder: Path, name: str
) -> None:
    weights = folder / "weights"
    shutil.move(weights / name, folder / name)
    try:
        job = run(client, training_file, BASE, n_epochs=1, batch_size=5)
    finally:
        shutil.move(folder / name, weights / name)
    assert job.error is not None
    assert (job.status, job.error.code) == ("failed", "model_files_missing")
    what = "safetensors weights" if name == "model.safetensors" else name
    assert f"The base model tiny lacks {what};" in job.error.message
