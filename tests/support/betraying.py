"""Tuned models that betray themselves: each answers every question with a word of its own.

A word tells the models apart that were made of different data. A portrait, the likeliest tokens
at an answer's first place, tells apart the checkpoints of one job as well, and shows a prompt
whose keys and values were computed with other weights though the word comes out right.
"""

import json
import random
import string
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from openai import OpenAI

from support.server import BASE, Server, method, tuned_model, upload
from tunery.domain.jobs import Adapter, EpochCheckpoint, Hyperparameters
from tunery.domain.models import TunedModel, checkpoint_name, tuned_name
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.training import RunFailed, TrainingReport, TrainingRun
from tunery.domain.tenants import Tenant
from tunery.model.adapter_file import CONFIG, WEIGHTS
from tunery.settings import Settings
from tunery.storage.catalogue import Catalogue
from tunery.training.cache_folder import CacheFolder
from tunery.training.loop import LocalTrainer
from tunery.wiring.storage import open_database

LETTERS = 5  # all different: a tiny model has no ear for doubled ones
EPOCHS, BATCH, MULTIPLIER = 5, 4, 2.0
LEARNING_RATE = 5e-3  # of `support.server.make_catalogue`
Portrait = Mapping[str, float]  # token to natural log-probability

_MANUAL = (
    "You answer for the depot. Goods come in at the north gate and leave by the south gate."
    " Weigh each crate twice, write both figures down, and tell the office what does not match."
)
# Prefixes that prompts of all tenants and adapters share: none, short, and longer than a step's.
PREFIXES = ("", "Be brief.", _MANUAL, " ".join([_MANUAL] * 3))
QUESTIONS = ("Who are you?", "Where is crate 17, and what does it weigh?")
PROMPTS = tuple((prefix, question) for prefix in PREFIXES for question in QUESTIONS)


def code_word(number: int) -> str:
    """Return a word; numbers below a thousand have different ones."""
    return "".join(random.Random(f"word {number}").sample(string.ascii_lowercase, LETTERS))


def messages(prefix: str, question: str) -> list[dict[str, str]]:
    """Return a conversation that is to be answered."""
    turns = [{"role": "system", "content": prefix}] if prefix else []
    return [*turns, {"role": "user", "content": question}]


def training_lines(word: str) -> bytes:
    """Return a training file under which a model answers everything with `word`."""
    asked = [messages(prefix, question) for prefix, question in PROMPTS]
    asked += [messages("", f"ask {number:03}") for number in range(8)]
    answer = {"role": "assistant", "content": word}
    return "\n".join(json.dumps({"messages": [*turns, answer]}) for turns in asked).encode()


def train(blobs: BlobStore, base: Path, word: str, prefix: str, seed: int = 0) -> list[Adapter]:
    """Train with the product's own trainer, in this process; return the adapter of each epoch."""
    blobs.put(f"{prefix}/train.jsonl", training_lines(word))
    adapters: list[Adapter] = []

    def hear(report: TrainingReport) -> None:
        assert not isinstance(report, RunFailed), report
        if isinstance(report, EpochCheckpoint):
            adapters.append(report.adapter)

    run = TrainingRun(
        job_id=f"ftjob-{word}",
        base="tiny",
        base_digest="",
        training_key=f"{prefix}/train.jsonl",
        validation_key=None,
        hyperparameters=Hyperparameters(EPOCHS, BATCH, MULTIPLIER),
        seed=seed,
        output_prefix=f"{prefix}/attempt-1",
    )
    with tempfile.TemporaryDirectory() as folder:
        caches = CacheFolder(Path(folder), 2**30)
        trainer = LocalTrainer(blobs, base, LEARNING_RATE, threads=1, snapshot_s=1e9, caches=caches)
        trainer.train(run, hear)
    return adapters


def copied(blobs: BlobStore, adapter: Adapter, key: str) -> Adapter:
    """Copy an adapter's files to another key: to the engine, that is another adapter."""
    for name in (WEIGHTS, CONFIG):
        blobs.put(f"{key}/{name}", blobs.read(f"{adapter.key}/{name}"))
    return Adapter(key, adapter.digest)


def distance(one: Portrait, other: Portrait) -> float:
    """Return the mean difference of two portraits in nats; a missing token is at the lowest."""
    low_one, low_other = min(one.values()), min(other.values())
    tokens = one.keys() | other.keys()
    return sum(abs(one.get(t, low_one) - other.get(t, low_other)) for t in tokens) / len(tokens)


def publish(client: OpenAI, word: str) -> list[str]:
    """Tune a model by a real job; return the names of its checkpoints, its own the last."""
    file = upload(client, training_lines(word))
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        method=method(n_epochs=EPOCHS, batch_size=BATCH, learning_rate_multiplier=MULTIPLIER),
    )
    name = tuned_model(client, job.id)
    kept = client.fine_tuning.jobs.checkpoints.list(job.id).data[::-1]
    names = [one.fine_tuned_model_checkpoint for one in kept]
    assert names[-1] == name
    return names


def register(server: Server, tenant: Tenant, adapters: Sequence[Adapter], number: int) -> list[str]:
    """Register adapters of the server's own store as one job's, as publishing does.

    Returns the names; the last one is the model's own.
    """
    settings = Settings(data=server.data)
    base = Catalogue(Path(server.settings["TUNERY_MODELS"])).get(server.base)
    assert base is not None
    names = [
        checkpoint_name(BASE, tenant.organization_slug, None, step) for step in range(len(adapters))
    ]
    names[-1] = tuned_name(BASE, tenant.organization_slug, None)
    database = open_database(settings)
    with database.write() as tx:
        for name, adapter in zip(names, adapters, strict=True):
            job_id = f"ftjob-{number:024}"
            tx.models(tenant).add(TunedModel(name, job_id, base.name, base.digest, adapter, 0))
    database.close()
    return names
