"""A run over a base of each family: gone on with from a snapshot, and served as it was trained."""

from pathlib import Path

import pytest

from support.networks import PEFT_WARNING, drain
from support.training_runs import ALWAYS, TOY, files, of, put, train
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.jobs import Adapter, EpochCheckpoint, Snapshot
from tunery.domain.ports.training import ProofRequest
from tunery.engine.adapters import AdapterStack
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import Scheduler, idle_callback
from tunery.engine.seats import Limits
from tunery.model import adapter_file
from tunery.model.base import compute_dtype, load_base
from tunery.services.publishing import Tolerance, compare
from tunery.settings import TrainingSettings
from tunery.storage.blobs import LocalBlobStore
from tunery.training.reference import PeftReference


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


def _scores(
    scheduler: Scheduler,
    blobs: LocalBlobStore,
    adapter: Adapter,
    texts: tuple[tuple[int, ...], ...],
) -> list[list[float]]:
    """Return the log-probabilities that the engine gives the texts, all in one batch."""
    read = adapter_file.read(*files(blobs, adapter), scheduler.adapters.shapes, 16)
    scheduler.adapters.load("learned", read)
    rows = [
        Row(ids, "learned", 0, Sampling(0, 1, None), None, idle_callback, idle_callback, scores=[])
        for ids in texts
    ]
    for row in rows:
        scheduler.submit(row)
    drain(scheduler)
    return [row.scores or [] for row in rows]


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_a_resumed_run_has_the_same_bytes_and_is_served_within_the_publishing_checks_bounds(
    any_base: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    whole = train(blobs, any_base, "whole", snapshot_s=ALWAYS)
    snapshot = next(one for one in of(whole, Snapshot) if one.step == 3)
    again = train(blobs, any_base, "again", resume_from=snapshot)
    learned, other = (of(reports, EpochCheckpoint)[-1].adapter for reports in (whole, again))
    assert files(blobs, learned) == files(blobs, other)
    first, last = (of(whole, EpochCheckpoint)[n].metrics.train_loss for n in (0, -1))
    assert last < first

    renderer = ChatRenderer.load(any_base)
    texts = tuple(tuple(renderer.example(messages).token_ids) for messages in TOY)
    request = ProofRequest("tiny", "b" * 64, (learned,), texts)
    (expected,) = PeftReference(blobs, any_base, 0).score(request)
    network = load_base(any_base, compute_dtype())
    adapters = AdapterStack(network, 1, max_rank=16, most_bytes=2**30)
    limits = Limits(4, 512, 16, 64, 60.0, 2**30)
    scheduler = Scheduler(network, adapters, renderer.tokenizer, limits)
    proof = compare(_scores(scheduler, blobs, learned, texts), expected)
    bounds = TrainingSettings()
    assert proof.within(Tolerance(bounds.proof_mean, bounds.proof_max, len(texts)))
    assert proof.tokens == sum(len(ids) - 1 for ids in texts)
