"""A whole training run: what it reports, what it writes, and that it can be resumed."""

import errno
import hashlib
import importlib.metadata
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load

from support.networks import log_probabilities, merged_model, plain_model, random_adapter, store
from support.training_runs import (
    ALWAYS,
    CONFIG,
    TOY,
    WEIGHTS,
    files,
    of,
    put,
    put_pairs,
    train,
    turns,
)
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.jobs import (
    EpochCheckpoint,
    Snapshot,
    StepMetrics,
)
from tunery.domain.ports.training import (
    OUT_OF_MEMORY,
    RunFailed,
    RunFinished,
    RunPaused,
    RunStarted,
)
from tunery.model import adapter_file
from tunery.model.adapter_file import BadAdapter
from tunery.model.base import load_base
from tunery.storage.blobs import LocalBlobStore
from tunery.training import loop
from tunery.training.adapter import LearnedAdapter
from tunery.training.loop import learning_rate_at


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


def _mean_loss(model: Any, base: Path, conversations: Sequence[list[dict[str, Any]]]) -> float:
    """Return the mean loss over every learned token, from transformers' log-probabilities."""
    renderer = ChatRenderer.load(base)
    losses: list[float] = []
    for messages in conversations:
        rendered = renderer.example(messages)
        scores = log_probabilities(model, rendered.token_ids)
        pairs = zip(scores, rendered.supervised[1:], strict=True)
        losses += [-score for score, learned in pairs if learned]
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("step", "total", "share"),
    [
        (1, 1, 1.0),  # the warm-up has at least one step
        (1, 10, 1.0),
        (2, 10, 9 / 10),
        (10, 10, 1 / 10),
        (1, 100, 1 / 10),  # a tenth of the steps
        (10, 100, 1.0),
        (11, 100, 90 / 91),
        (100, 100, 1 / 91),
        (1, 1000, 1 / 20),  # and at most twenty
        (20, 1000, 1.0),
        (21, 1000, 980 / 981),
        (1000, 1000, 1 / 981),
    ],
)
def test_the_learning_rate_rises_and_falls_linearly(step: int, total: int, share: float) -> None:
    assert learning_rate_at(step, total, 0.3) == pytest.approx(0.3 * share)


def test_a_run_reports_every_step_and_one_checkpoint_an_epoch(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    reports = train(blobs, tiny_model, "out/run", epochs=3, batch_size=2)
    # Seven examples in batches of two are four steps an epoch.
    epoch = [StepMetrics] * 4 + [EpochCheckpoint, Snapshot]
    assert [type(report) for report in reports] == [RunStarted, *epoch * 3, RunFinished]
    assert reports[0] == RunStarted(total_steps=12, first_step=1)
    metrics = of(reports, StepMetrics)
    assert [(m.step, m.total_steps) for m in metrics] == [(n, 12) for n in range(1, 13)]
    assert all(m.valid_loss is m.full_valid_loss is None for m in metrics)
    assert [m.learning_rate for m in metrics] == [
        learning_rate_at(n, 12, 5e-3) for n in range(1, 13)
    ]
    assert all(m.seconds_left is not None and m.seconds_left >= 0 for m in metrics)
    checkpoints = of(reports, EpochCheckpoint)
    assert [(c.step, c.epoch) for c in checkpoints] == [(4, 1), (8, 2), (12, 3)]
    assert [c.metrics for c in checkpoints] == [metrics[3], metrics[7], metrics[11]]
    assert [s.step for s in of(reports, Snapshot)] == [4, 8, 12]
    # Each turn is its role, its content, two marks and two newlines: one token a byte.
    count = sum(len(m["role"]) + len(m["content"]) + 4 for turns in TOY for m in turns)
    assert reports[-1] == RunFinished(3 * count)
    keys = {f"{c.adapter.key}/{name}" for c in checkpoints for name in (WEIGHTS, CONFIG)}
    assert set(blobs.keys("out")) == keys | {s.key for s in of(reports, Snapshot)}
    assert all(key.startswith("out/run/") for key in blobs.keys("out"))
    for checkpoint in checkpoints:
        weights, config = files(blobs, checkpoint.adapter)
        assert hashlib.sha256(weights).hexdigest() == checkpoint.adapter.digest
        assert orjson.loads(config)["base_model_name_or_path"] == "tiny"
    assert len({checkpoint.adapter.digest for checkpoint in checkpoints}) == 3


def test_the_loss_falls_and_the_checkpoint_holds_what_was_learned(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    put(blobs, "held", TOY[:3])
    reports = train(
        blobs, tiny_model, "out", epochs=6, batch_size=7, rate=2e-2, validation_key="held"
    )
    metrics, last = of(reports, StepMetrics), of(reports, EpochCheckpoint)[-1]
    at_first = _mean_loss(plain_model(tiny_model), tiny_model, TOY)
    assert metrics[0].train_loss == pytest.approx(at_first, abs=0.03)
    assert metrics[-1].train_loss < at_first / 2
    assert metrics[-1].train_mean_token_accuracy > metrics[0].train_mean_token_accuracy
    shapes = load_base(tiny_model, plain_model(tiny_model).dtype).shapes()
    weights = adapter_file.read(*files(blobs, last.adapter), shapes, 16)
    learned = _mean_loss(merged_model(tiny_model, weights), tiny_model, TOY[:3])
    assert last.metrics.full_valid_loss == pytest.approx(learned, abs=0.05)


def test_validation_looks_at_a_batch_now_and_then_and_at_all_of_it_after_each_epoch(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY * 3)
    put(blobs, "held", TOY[:5])
    # A rate of zero: every loss is the base's.
    metrics = of(
        train(
            blobs,
            tiny_model,
            "out",
            epochs=2,
            batch_size=2,
            rate=0.0,
            validation_key="held",
        ),
        StepMetrics,
    )
    # 21 examples are 11 steps an epoch, 22 in all: a look every second step.
    assert [m.step for m in metrics if m.valid_loss is not None] == list(range(2, 23, 2))
    assert [m.step for m in metrics if m.full_valid_loss is not None] == [11, 22]
    base = plain_model(tiny_model)
    looks = [TOY[:2], TOY[2:4], TOY[4:5]]  # then from 6 % 5 = 1 on
    for step, look in zip((2, 4, 6, 8), [*looks, TOY[1:3]], strict=True):
        wanted = _mean_loss(base, tiny_model, look)
        assert metrics[step - 1].valid_loss == pytest.approx(wanted, abs=0.03)
    wanted = _mean_loss(base, tiny_model, TOY[:5])
    assert metrics[10].full_valid_loss == pytest.approx(wanted, abs=0.03)
    accuracies = [m.full_valid_mean_token_accuracy for m in metrics if m.full_valid_loss]
    assert all(accuracy is not None and 0 <= accuracy <= 1 for accuracy in accuracies)


def test_a_resumed_run_writes_the_bytes_of_the_uninterrupted_one(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    put(blobs, "held", TOY[:2])
    whole = train(blobs, tiny_model, "whole", snapshot_s=ALWAYS, validation_key="held")
    snapshots = {snapshot.step: snapshot for snapshot in of(whole, Snapshot)}
    assert set(snapshots) == set(range(1, 9))
    last = of(whole, EpochCheckpoint)[-1].adapter
    for step in (3, 4, 7):  # before an epoch's end, at it, before the very end
        prefix = f"again-{step}"
        again = train(blobs, tiny_model, prefix, validation_key="held", resume_from=snapshots[step])
        assert again[0] == RunStarted(8, step + 1)
        assert of(again, StepMetrics) == of(whole, StepMetrics)[step:]
        assert [c.epoch for c in of(again, EpochCheckpoint)] == [1, 2][step // 4 :]
        found = of(again, EpochCheckpoint)[-1].adapter
        assert found.digest == last.digest
        assert files(blobs, found) == files(blobs, last)
        assert again[-1] == whole[-1]
    ended = train(blobs, tiny_model, "ended", resume_from=snapshots[8])
    assert ended == [RunStarted(8, 9), whole[-1]]


@pytest.mark.parametrize(
    ("step", "resumed_from", "snapshots"),
    [
        (0, None, []),  # before the first step: there is nothing to save
        (3, None, [3]),
        (4, None, [4]),  # at an epoch's end, whose snapshot is enough
        (6, 3, [4, 6]),
        (3, 3, []),  # as it was taken up
        (7, None, [4, 7]),
    ],
)
def test_a_paused_run_saves_its_steps_and_goes_on_to_the_bytes_of_the_uninterrupted_one(
    tiny_model: Path,
    blobs: LocalBlobStore,
    step: int,
    resumed_from: int | None,
    snapshots: list[int],
) -> None:
    put(blobs, "train", TOY)
    whole = train(blobs, tiny_model, "whole", snapshot_s=ALWAYS)
    begun = {snapshot.step: snapshot for snapshot in of(whole, Snapshot)}
    first = 0 if resumed_from is None else resumed_from
    paused = train(
        blobs,
        tiny_model,
        "paused",
        pause_at=step - first,
        resume_from=None if resumed_from is None else begun[resumed_from],
    )
    assert paused[-1] == RunPaused()
    assert of(paused, StepMetrics) == of(whole, StepMetrics)[first:step]
    assert [snapshot.step for snapshot in of(paused, Snapshot)] == snapshots
    last = [begun[first]] if resumed_from else []
    last = [*last, *of(paused, Snapshot)]
    again = train(blobs, tiny_model, "again", resume_from=last[-1] if last else None)
    assert again[0] == RunStarted(8, step + 1)
    assert of(again, StepMetrics) == of(whole, StepMetrics)[step:]
    ends = [of(reports, EpochCheckpoint)[-1].adapter for reports in (whole, again)]
    assert files(blobs, ends[0]) == files(blobs, ends[1])
    assert again[-1] == whole[-1]


@pytest.mark.parametrize("beta", [None, 0.1])
@pytest.mark.parametrize("damage", ["a bit", "cut off", "gone"])
def test_a_snapshot_that_is_not_as_it_was_written_is_none_and_the_bytes_are_the_same(
    tiny_model: Path, blobs: LocalBlobStore, damage: str, beta: float | None
) -> None:
    if beta is None:
        put(blobs, "train", TOY)
    else:
        put_pairs(blobs, "train", 7)
    whole = train(blobs, tiny_model, "whole", snapshot_s=ALWAYS, beta=beta)
    snapshot = of(whole, Snapshot)[2]
    state = blobs.read(snapshot.key)
    assert snapshot.digest == hashlib.sha256(state).hexdigest()
    blobs.delete(snapshot.key)
    if damage == "a bit":  # within the numbers: it would be loaded without a word
        blobs.put(snapshot.key, state[:-1] + bytes([state[-1] ^ 1]))
    elif damage == "cut off":
        blobs.put(snapshot.key, state[:-100])
    again = train(blobs, tiny_model, "again", resume_from=snapshot, beta=beta)
    assert again[0] == RunStarted(8, 1)
    assert of(again, StepMetrics) == of(whole, StepMetrics)
    ends = [[one.adapter.digest for one in of(made, EpochCheckpoint)] for made in (whole, again)]
    assert ends[0] == ends[1]


def test_a_snapshot_of_an_earlier_version_has_no_digest_and_is_taken_up(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    snapshot = of(train(blobs, tiny_model, "whole", snapshot_s=ALWAYS), Snapshot)[2]
    without = Snapshot(snapshot.step, snapshot.key)
    assert train(blobs, tiny_model, "again", resume_from=without)[0] == RunStarted(8, 4)


def test_a_pause_after_the_last_step_comes_too_late(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    reports = train(blobs, tiny_model, "out", pause_at=8)
    assert isinstance(reports[-1], RunFinished)
    assert not of(reports, RunPaused)


def test_a_batch_computed_in_parts_teaches_the_same(
    tiny_model: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(blobs, "train", TOY)
    losses = []
    for most in (4096, 100):  # the seven examples have 308 tokens
        monkeypatch.setattr(loop, "MICRO_BATCH_TOKENS", most)
        reports = train(blobs, tiny_model, f"run-{most}", epochs=4, batch_size=7, rate=2e-2)
        losses.append([m.train_loss for m in of(reports, StepMetrics)])
    whole, parts = losses
    assert parts == pytest.approx(whole, abs=0.05)
    assert whole[0] - whole[-1] > 0.5


def test_a_seed_gives_its_own_bytes_again_and_again(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    first, again, other = (
        of(train(blobs, tiny_model, f"run-{n}", epochs=1, seed=seed), EpochCheckpoint)[0].adapter
        for n, seed in enumerate((3, 3, 4))
    )
    assert files(blobs, first) == files(blobs, again)
    assert first.digest == again.digest != other.digest


def test_a_run_that_diverges_fails_by_name_and_reports_nothing_more(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    reports = train(blobs, tiny_model, "out", batch_size=4, epochs=4, rate=1e30)
    failed = reports[-1]
    assert isinstance(failed, RunFailed)
    assert failed.code == "non_finite_loss"
    assert "learning_rate_multiplier" in failed.message
    steps = of(reports, StepMetrics)
    assert [m.step for m in steps] == list(range(1, len(steps) + 1))
    assert len(steps) < 8
    assert f"step {len(steps) + 1}" in failed.message
    # The step before has made the weights that were found to be bad.
    assert failed.good_step == len(steps) - 1
    assert len(of(reports, RunFailed)) == 1
    assert not of(reports, RunFinished)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_loss_that_stops_being_finite_ends_the_run_at_that_step(
    tiny_model: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    put(blobs, "train", TOY)
    step, bad_from = LearnedAdapter.step, 6
    taken = 0

    def spoil(adapter: LearnedAdapter, learning_rate: float) -> float:
        nonlocal taken
        norm, taken = step(adapter, learning_rate), taken + 1
        if taken == bad_from - 1:
            with torch.no_grad():
                adapter.parameters()[1].fill_(value)
        return norm

    monkeypatch.setattr(LearnedAdapter, "step", spoil)
    reports = train(blobs, tiny_model, "out", batch_size=2, epochs=3)  # four steps an epoch
    failed = reports[-1]
    assert isinstance(failed, RunFailed)
    assert (failed.code, failed.good_step) == ("non_finite_loss", bad_from - 2)
    assert [m.step for m in of(reports, StepMetrics)] == list(range(1, bad_from))
    (good,) = of(reports, EpochCheckpoint)
    assert good.step <= bad_from - 2
    tensors = load(files(blobs, good.adapter)[0])
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_weights_that_are_not_finite_are_no_checkpoint(
    tiny_model: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(blobs, "train", TOY)
    step, taken = LearnedAdapter.step, 0

    def spoil(adapter: LearnedAdapter, learning_rate: float) -> float:
        nonlocal taken
        norm, taken = step(adapter, learning_rate), taken + 1
        if taken == 8:  # the last of the second epoch, and of the run
            with torch.no_grad():
                adapter.parameters()[1][0, 0] = math.inf
        return norm

    monkeypatch.setattr(LearnedAdapter, "step", spoil)
    reports = train(blobs, tiny_model, "out", batch_size=2, epochs=2)
    failed = reports[-1]
    assert isinstance(failed, RunFailed)
    assert (failed.code, failed.good_step) == ("non_finite_loss", 7)
    assert [one.step for one in of(reports, EpochCheckpoint)] == [4]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_want_of_memory_fails_the_run_by_name_and_says_what_to_change(
    tiny_model: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    put(blobs, "train", TOY)
    step, taken = LearnedAdapter.step, 0

    def fail(adapter: LearnedAdapter, learning_rate: float) -> float:
        nonlocal taken
        taken += 1
        if taken == 6:
            raise error
        return step(adapter, learning_rate)

    monkeypatch.setattr(LearnedAdapter, "step", fail)
    reports = train(blobs, tiny_model, "out", batch_size=2, epochs=2)
    assert reports[-1] == OUT_OF_MEMORY
    assert "smaller batch_size" in OUT_OF_MEMORY.message
    assert [one.step for one in of(reports, EpochCheckpoint)] == [4]


def test_an_error_that_is_none_of_memory_is_no_want_of_it(
    tiny_model: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(adapter: LearnedAdapter, learning_rate: float) -> float:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    put(blobs, "train", TOY)
    monkeypatch.setattr(LearnedAdapter, "step", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        train(blobs, tiny_model, "out")


# Trains twice, the second time with not much more memory than it has already.
LITTLE_MEMORY = """
import json, resource, sys
from pathlib import Path
from support.training_runs import of, put, train, turns
from tunery.domain.ports.training import RunFailed
from tunery.storage.blobs import LocalBlobStore
base, folder = map(Path, sys.argv[1:])
blobs = LocalBlobStore(folder)
put(blobs, "train", [turns(f"question {n}", "the answer") for n in range(4)])
train(blobs, base, "small/attempt-1", epochs=1)
put(blobs, "train", [turns(f"question {n}" + "." * 400, "the answer") for n in range(64)])
status = Path("/proc/self/status").read_text()
size = 1024 * int(status.partition("VmSize:")[2].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (size + 12 * 2**20, resource.RLIM_INFINITY))
(failed,) = of(train(blobs, base, "large/attempt-1", epochs=1, batch_size=64), RunFailed)
print(failed.code)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory")
def test_an_allocation_that_this_machine_refuses_is_a_want_of_memory(
    tiny_model: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, tiny_model, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "out_of_memory\n", done.stderr[-2000:]


def test_answers_of_weight_zero_teach_nothing(tiny_model: Path, blobs: LocalBlobStore) -> None:
    put(blobs, "train", [turns(f"question {n}", "the answer", weight=0) for n in range(4)])
    reports = train(blobs, tiny_model, "out", epochs=1)
    assert [type(report) for report in reports][-1] is RunFinished
    assert [m.train_loss for m in of(reports, StepMetrics)] == [0.0, 0.0]
    (checkpoint,) = of(reports, EpochCheckpoint)
    tensors = load(files(blobs, checkpoint.adapter)[0])
    ups = [tensor for name, tensor in tensors.items() if "lora_B" in name]
    assert len(ups) == 14
    assert not any(tensor.any() for tensor in ups)


def test_tuning_a_tuned_model_starts_with_its_loss_and_its_rank(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    weights = random_adapter(tiny_model, 1, rank=5, alpha=10.0)
    parent = store(blobs, "parent", weights)
    reports = train(blobs, tiny_model, "out", epochs=1, batch_size=7, start_from=parent)
    wanted = _mean_loss(merged_model(tiny_model, weights), tiny_model, TOY)
    assert abs(wanted - _mean_loss(plain_model(tiny_model), tiny_model, TOY)) > 0.2
    assert of(reports, StepMetrics)[0].train_loss == pytest.approx(wanted, abs=0.05)
    (checkpoint,) = of(reports, EpochCheckpoint)
    config = orjson.loads(files(blobs, checkpoint.adapter)[1])
    assert (config["r"], config["lora_alpha"]) == (5, 10.0)


def test_a_parent_that_is_not_the_one_published_is_refused(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    put(blobs, "train", TOY)
    parent = store(blobs, "parent", random_adapter(tiny_model, 1))
    data = blobs.read(f"parent/{WEIGHTS}")
    blobs.put(f"parent/{WEIGHTS}", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BadAdapter, match="not the one published"):
        train(blobs, tiny_model, "out", start_from=parent)
    assert not list(blobs.keys("out"))


def test_a_run_says_what_its_bytes_depend_on(tiny_model: Path, blobs: LocalBlobStore) -> None:
    put(blobs, "train", TOY)
    put(blobs, "held", TOY[:2])
    digests = [hashlib.sha256(blobs.read(key)).hexdigest() for key in ("train", "held")]
    weights = random_adapter(tiny_model, 5)
    parent = store(blobs, "p/parent", weights)
    told = []
    cases: list[dict[str, Any]] = [{"validation_key": "held", "start_from": parent}, {}]
    for others in cases:
        (started,) = of(train(blobs, tiny_model, "out", epochs=1, **others), RunStarted)
        assert started.made_with is not None
        told.append(started.made_with)
    whole, plain = told
    assert (whole.training_digest, whole.validation_digest) == (digests[0], digests[1])
    assert whole.start_from_digest == parent.digest
    assert (plain.validation_digest, plain.start_from_digest) == (None, None)
    assert whole.base_digest == "b" * 64
    assert whole.template_digest == ChatRenderer.load(tiny_model).digest
    assert (whole.torch, whole.threads) == (torch.__version__, torch.get_num_threads())
    assert whole.tunery == importlib.metadata.version("tunery")


def test_two_runs_that_say_the_same_have_adapters_of_one_digest(
    tiny_model: Path, tmp_path: Path
) -> None:
    ends = []
    for name in ("one", "other"):  # with nothing in common on disk
        blobs = LocalBlobStore(tmp_path / name)
        put(blobs, "train", TOY)
        reports = train(blobs, tiny_model, "out")
        (started,) = of(reports, RunStarted)
        digests = [checkpoint.adapter.digest for checkpoint in of(reports, EpochCheckpoint)]
        ends.append((started.made_with, digests))
    assert ends[0] == ends[1]
    assert ends[0][0] is not None
    assert len(set(ends[0][1])) == 2


@pytest.mark.parametrize("beta", [None, 0.1])
def test_a_resumed_run_reads_the_cache_of_the_first(
    tiny_model: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, beta: float | None
) -> None:
    if beta is None:
        put(blobs, "train", TOY)
    else:
        put_pairs(blobs, "train", 7)
    first = train(blobs, tiny_model, "out/attempt-1", pause_at=3, beta=beta)
    (snapshot,) = of(first, Snapshot)

    def refuse(*args: object) -> None:
        raise AssertionError("a line was rendered again")

    monkeypatch.setattr(ChatRenderer, "line", refuse)
    again = train(blobs, tiny_model, "out/attempt-2", resume_from=snapshot, beta=beta)
    assert isinstance(again[-1], RunFinished)
    with pytest.raises(AssertionError, match="rendered again"):
        train(blobs, tiny_model, "other/attempt-1", beta=beta)
