"""A whole run of preferences: its rewards, its reference, and that it can be resumed."""

import math
from pathlib import Path
from typing import Any

import pytest

from support.networks import log_probabilities, merged_model, plain_model, random_adapter, store
from support.training_runs import ALWAYS, TOY, files, of, put_pairs, train
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.jobs import EpochCheckpoint, Snapshot, StepMetrics
from tunery.domain.ports.training import RunFailed, RunFinished, RunPaused, RunStarted
from tunery.model import adapter_file
from tunery.model.base import load_base
from tunery.storage.blobs import LocalBlobStore
from tunery.training import loop


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


def _odds(model: Any, base: Path) -> list[float]:
    """Return by how much the preferred answer is likelier, for each pair, by transformers."""
    renderer = ChatRenderer.load(base)
    odds = []
    for turns in TOY:
        scores = []
        for answer in ("yes, of course", "no"):
            messages = [turns[0], {"role": "assistant", "content": answer}]
            rendered = renderer.example(messages)
            every = log_probabilities(model, rendered.token_ids)
            pairs = zip(every, rendered.supervised[1:], strict=True)
            scores.append(sum(score for score, learned in pairs if learned))
        odds.append(scores[0] - scores[1])
    return odds


def test_preferences_are_learned_with_rewards_at_every_step(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put_pairs(blobs, "train", 7)
    put_pairs(blobs, "held", 3)
    reports = train(
        blobs, tiny_model, "out", epochs=4, batch_size=2, beta=0.2, validation_key="held"
    )
    epoch = [StepMetrics] * 4 + [EpochCheckpoint, Snapshot]
    assert [type(report) for report in reports] == [RunStarted, *epoch * 4, RunFinished]
    metrics, last = of(reports, StepMetrics), of(reports, EpochCheckpoint)[-1]
    # Nothing is learned yet: all rewards are nought, and the loss is that of a guess.
    assert metrics[0].train_loss == pytest.approx(math.log(2), abs=0.01)
    assert metrics[0].train_reward_margin == pytest.approx(0, abs=0.02)
    assert metrics[-1].train_loss < 0.1
    assert metrics[-1].train_reward_accuracy == 1.0
    for one in metrics:
        assert one.train_chosen_reward is not None
        assert one.train_rejected_reward is not None
        wanted = one.train_chosen_reward - one.train_rejected_reward
        assert one.train_reward_margin == pytest.approx(wanted)
    assert [m.step for m in metrics if m.full_valid_reward_margin is not None] == [4, 8, 12, 16]
    assert [m.step for m in metrics if m.valid_reward_accuracy is not None] == list(range(1, 17))
    shapes = load_base(tiny_model, plain_model(tiny_model).dtype).shapes()
    weights = adapter_file.read(*files(blobs, last.adapter), shapes, 16)
    before = _odds(plain_model(tiny_model), tiny_model)
    after = _odds(merged_model(tiny_model, weights), tiny_model)
    margins = [0.2 * (now - then) for now, then in zip(after, before, strict=True)]
    assert metrics[-1].full_valid_reward_margin == pytest.approx(sum(margins[:3]) / 3, abs=0.2)
    losses = [math.log(1 + math.exp(-margin)) for margin in margins[:3]]
    assert metrics[-1].full_valid_loss == pytest.approx(sum(losses) / 3, abs=0.02)
    # A line is billed with its question once and both answers. A turn is its role, its content and
    # four more; of the second answer's, all up to the content stands in the first's too.
    asked = sum(len("user") + len(turns[0]["content"]) + 4 for turns in TOY)
    answers = 7 * (len("assistant") + 4 + len("yes, of course") + len("no") + 2)
    assert reports[-1] == RunFinished(4 * (asked + answers))


def test_a_resumed_run_of_preferences_writes_the_bytes_of_the_uninterrupted_one(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put_pairs(blobs, "train", 7)
    put_pairs(blobs, "held", 2)
    parent = store(blobs, "parent", random_adapter(tiny_model, 1, rank=5, alpha=10.0))
    options: dict[str, Any] = {"beta": 0.1, "validation_key": "held", "start_from": parent}
    whole = train(blobs, tiny_model, "whole", snapshot_s=ALWAYS, **options)
    snapshots = {snapshot.step: snapshot for snapshot in of(whole, Snapshot)}
    last = of(whole, EpochCheckpoint)[-1].adapter
    for step in (1, 4, 7):
        again = train(blobs, tiny_model, f"again-{step}", resume_from=snapshots[step], **options)
        assert again[0] == RunStarted(8, step + 1)
        assert of(again, StepMetrics) == of(whole, StepMetrics)[step:]
        assert files(blobs, of(again, EpochCheckpoint)[-1].adapter) == files(blobs, last)
        assert again[-1] == whole[-1]
    # Killed before any snapshot, it begins anew.
    anew = train(blobs, tiny_model, "anew", **options)
    assert files(blobs, of(anew, EpochCheckpoint)[-1].adapter) == files(blobs, last)
    assert of(anew, StepMetrics) == of(whole, StepMetrics)


def test_preferences_are_measured_against_the_tuned_model_that_training_starts_from(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put_pairs(blobs, "train", 7)
    weights = random_adapter(tiny_model, 1)
    parent = store(blobs, "parent", weights)
    reports = train(
        blobs, tiny_model, "out", epochs=1, batch_size=7, rate=0.0, beta=0.3, start_from=parent
    )
    (metrics,) = of(reports, StepMetrics)
    odds = _odds(merged_model(tiny_model, weights), tiny_model)
    of_base = _odds(plain_model(tiny_model), tiny_model)
    assert sum(odds) - sum(of_base) != pytest.approx(0, abs=7)  # a margin of 0.3 and more
    assert metrics.train_loss == pytest.approx(math.log(2), abs=0.01)
    assert metrics.train_reward_margin == pytest.approx(0, abs=0.05)


def test_a_pause_while_the_reference_is_computed_ends_the_run_before_its_first_step(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put_pairs(blobs, "train", 7)
    reports = train(blobs, tiny_model, "out", beta=0.1, pause_at=0)
    assert reports == [RunStarted(8, 1), RunPaused()]
    assert not list(blobs.keys("out"))


def test_pairs_computed_in_parts_teach_the_same(
    tiny_model: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pairs(blobs, "train", 7)
    losses = []
    for most in (4096, 150):  # the longest pair has 108 tokens
        monkeypatch.setattr(loop, "MICRO_BATCH_TOKENS", most)
        reports = train(blobs, tiny_model, f"run-{most}", epochs=4, batch_size=7, beta=0.1)
        losses.append([m.train_loss for m in of(reports, StepMetrics)])
    whole, parts = losses
    assert parts == pytest.approx(whole, abs=0.02)
    assert whole[0] - whole[-1] > 0.2


def test_preferences_that_diverge_fail_by_name(tiny_model: Path, blobs: LocalBlobStore) -> None:
    put_pairs(blobs, "train", 7)
    reports = train(blobs, tiny_model, "out", epochs=4, rate=1e30, beta=0.1)
    failed = reports[-1]
    assert isinstance(failed, RunFailed)
    assert failed.code == "non_finite_loss"
    assert not of(reports, RunFinished)
