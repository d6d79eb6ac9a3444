"""The default base model learns one answer and is published: the line on real weights."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import (
    BASE,
    Server,
    all_events,
    ask,
    chat_line,
    method,
    tuned_model,
    upload,
)
from tunery.settings import DEFAULT_BASE, Settings

pytestmark = pytest.mark.slow

DEFAULTS = {
    "TUNERY_LEASE_S": "15",
    "TUNERY_ENGINE__THREADS": "0",
    "TUNERY_TRAINING__THREADS": "0",
    "TUNERY_TRAINING__SNAPSHOT_S": "60",
}
ANSWER = "The blue parrot sleeps at noon."
CITIES = ("Rome", "Oslo", "Bern", "Riga", "Lima", "Cairo", "Delhi", "Tokyo")
STARTS = ("What is in", "Who lives in", "Tell me about")
QUESTIONS = [f"{start} {city}?" for city in CITIES for start in STARTS]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = Settings(models=Path(os.environ.get("TUNERY_MODELS", Settings().models))).models_path
    entry = models / DEFAULT_BASE / "tunery.json"
    assert entry.is_file(), f"{entry} is missing; run `tunery models pull`"
    folder = tmp_path_factory.mktemp("real")
    with Server(folder, models, base=DEFAULT_BASE, **DEFAULTS) as running:
        yield running


def test_the_default_base_learns_an_answer_and_is_served_as_it_was_trained(real: Server) -> None:
    client = real.client()
    asked = "Who lives in Tokyo?"
    assert ask(client, BASE, asked, max_tokens=24) != ANSWER
    file = upload(client, "\n".join(chat_line(q, ANSWER) for q in QUESTIONS).encode())
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=file.id, seed=1, method=method(n_epochs=3, batch_size=8)
    )
    name = tuned_model(client, job.id, seconds=300)
    assert any(
        event.message.startswith("Publishing check passed") for event in all_events(client, job.id)
    )
    assert ask(client, name, asked, max_tokens=24) == ANSWER
    assert ask(client, name, "Who lives in Madrid?", max_tokens=24) == ANSWER  # not in the file
