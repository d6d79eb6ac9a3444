"""A training run from first step to last: the trainer that runs on this machine.

Steps, checkpoints and the end are reported; blobs are written below the run's own prefix. Knows
no job's row: whether a report still counts is decided by whoever hears it.
"""

import errno
import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tunery.datasets.batches import epoch_batches, micro_batches, steps_per_epoch
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.errors import NotFound
from tunery.domain.jobs import Adapter, EpochCheckpoint, Snapshot, StepMetrics
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.training import (
    OUT_OF_MEMORY,
    RunFailed,
    RunFinished,
    RunPaused,
    RunStarted,
    TrainingReport,
    TrainingRun,
)
from tunery.model import adapter_file
from tunery.model.base import BaseNetwork, compute_dtype, load_base
from tunery.model.device import CPU
from tunery.training.adapter import LearnedAdapter, arithmetic_of
from tunery.training.arithmetic import operations_for, told
from tunery.training.cache_folder import CacheFolder
from tunery.training.data import TrainingFile, load_examples
from tunery.training.methods import objective_of
from tunery.training.objective import Examples, Sums
from tunery.training.progress import Progress
from tunery.training.provenance import made_with

MAX_RANK = 256
VALIDATIONS = 10  # looks at one validation batch during a run, besides the full ones
# A batch over this many tokens is computed in parts, with the same gradient: activations take about
# a megabyte a token for the default base.
MICRO_BATCH_TOKENS = 4096
# What the publishing check scores, about: of each of the last epochs, lines or questions.
_PUBLISHED, _PROVEN, _QUESTIONS, _QUESTION = 3, 16, 8, 40
_WARMUP_SHARE, _WARMUP_STEPS = 0.1, 20

Report = Callable[[TrainingReport], None]
PauseWanted = Callable[[], bool]


def never() -> bool:
    """Return that no pause is wanted."""
    return False


class LocalTrainer:
    """Trains on this machine, in this process, all on one thread; `device` computes."""

    def __init__(
        self,
        blobs: BlobStore,
        base: Path,
        learning_rate: float,
        threads: int,
        snapshot_s: float,
        caches: CacheFolder,
        native_folder: Path | None = None,
        device: torch.device = CPU,
    ) -> None:
        """`native_folder` keeps native operations; None computes in torch alone."""
        self._blobs = blobs
        self._base = base
        self._caches = caches
        self._native_folder = native_folder
        self._device = device
        self._learning_rate = learning_rate
        self._snapshot_s = snapshot_s
        if threads:
            torch.set_num_threads(threads)

    def train(self, run: TrainingRun, report: Report, pause_wanted: PauseWanted = never) -> None:
        """Carry out `run`, or a part of it where a pause is wanted."""
        try:
            with self._caches.held(run.job_prefix) as cache:
                _Run(self, run, report, pause_wanted, cache).go()
        except (MemoryError, RuntimeError, OSError) as error:
            if not _is_want_of_memory(error):
                raise
            report(OUT_OF_MEMORY)


def _is_want_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in words for sign in _SIGNS)


# Of torch, on this machine and on a GPU, of C++, and of oneDNN, which computes products: it
# says no more, but a product of these types and shapes has nothing else to fail by.
_SIGNS = ("allocate memory", "out of memory", "bad_alloc", "could not create a primitive")


def learning_rate_at(step: int, total_steps: int, peak: float) -> float:
    """Return the rate of step `step` (from 1): linear warm-up, then linear decay to zero."""
    warmup = min(_WARMUP_STEPS, max(1, round(total_steps * _WARMUP_SHARE)))
    if step <= warmup:
        return peak * step / warmup
    return peak * (total_steps - step + 1) / (total_steps - warmup + 1)


class _Run:
    """One run's state."""

    def __init__(
        self,
        trainer: LocalTrainer,
        run: TrainingRun,
        report: Report,
        pause_wanted: PauseWanted,
        cache: Path,
    ) -> None:
        self.trainer, self.run, self.report = trainer, run, report
        self.pause_wanted = pause_wanted
        self.blobs = trainer._blobs
        renderer = ChatRenderer.load(trainer._base)
        device = trainer._device
        self.network: BaseNetwork = load_base(trainer._base, compute_dtype(device), device)
        self.objective = objective_of(run, self.network)
        training = self._load(run.training_key, renderer, cache)
        self.training = self.objective.examples(training.examples)
        self.validation: Examples[Any] | None = None
        held_out_digest = None
        if run.validation_key is not None:
            held_out = self._load(run.validation_key, renderer, cache)
            self.validation = self.objective.examples(held_out.examples)
            held_out_digest = held_out.digest
        self.resumed = self._state()
        before = None if self.resumed is None else arithmetic_of(self.resumed)
        operations = operations_for(self.network, trainer._native_folder, before)
        self.arithmetic = told(self.network, operations)
        self.made_with = made_with(
            run,
            self.network.device,
            self.arithmetic,
            training.digest,
            held_out_digest,
            renderer.digest,
        )
        numbers = run.hyperparameters
        self.steps_per_epoch = steps_per_epoch(len(self.training), numbers.batch_size)
        self.total_steps = self.steps_per_epoch * numbers.n_epochs
        start_from = self._start_from()  # reads the base's shapes before its linears are replaced
        self.adapter = LearnedAdapter.over(
            self.network, seed=run.seed, start_from=start_from, operations=operations
        )

    def go(self) -> None:
        """Train from the beginning, or from where an earlier attempt came to."""
        numbers, peak = self.run.hyperparameters, self.trainer._learning_rate
        peak *= numbers.learning_rate_multiplier
        done = 0
        if self.run.resume_from is not None and self.resumed is not None:
            self.objective.take_up(self.adapter.restore(self.resumed))
            self.resumed = None
            done = self.run.resume_from.step
        self.report(RunStarted(self.total_steps, done + 1, self.made_with))
        if not done and self.objective.is_relative and not self._prepare():
            self.report(RunPaused())
            return
        snapshot_step, snapshot_at = done, time.monotonic()
        lengths = self.training.lengths
        self.progress = self._progress(done)
        for epoch in range(done // self.steps_per_epoch, numbers.n_epochs):
            batches = epoch_batches(lengths, numbers.batch_size, seed=self.run.seed, epoch=epoch)
            for index, batch in enumerate(batches):
                step = epoch * self.steps_per_epoch + index + 1
                if step <= done:
                    continue
                if self.pause_wanted():
                    if step - 1 > snapshot_step:
                        self.report(self._snapshot(step - 1))
                    self.report(RunPaused())
                    return
                self.progress.begin()
                metrics = self._step(step, [self.training[i] for i in batch], peak)
                if metrics is None:
                    return
                ends_epoch = index == len(batches) - 1
                if ends_epoch and not self.adapter.is_finite():
                    self._diverged(f"after step {step} weights are not finite", step - 1)
                    return
                speed = self.progress.learned(sum(lengths[i] for i in batch))
                metrics = self._look(metrics)
                if ends_epoch and self.validation is not None:
                    every = range(len(self.validation))
                    metrics = self._validated(metrics, "full_valid", self.validation, every)
                left = self.progress.seconds_left
                self.report(replace(metrics, tokens_per_second=speed, seconds_left=left))
                if ends_epoch:
                    self.report(self._checkpoint(epoch, metrics))
                if ends_epoch or time.monotonic() - snapshot_at > self.trainer._snapshot_s:
                    self.report(self._snapshot(step))
                    snapshot_step, snapshot_at = step, time.monotonic()
        billed = self.objective.billed_tokens(self.training)
        self.report(RunFinished(numbers.n_epochs * billed))

    def _state(self) -> bytes | None:
        """Return the snapshot to resume from, or None where there is none.

        One that is gone, or not what was written, is none: the run makes its steps anew.
        """
        snapshot = self.run.resume_from
        if snapshot is None:
            return None
        try:
            state = self.blobs.read(snapshot.key)
        except NotFound:
            return None
        if snapshot.digest not in (None, hashlib.sha256(state).hexdigest()):
            return None
        return state

    def _prepare(self) -> bool:
        """Prepare all examples under the weights at the start; return False where a pause came."""
        for examples in (self.training, self.validation):
            if examples is not None:
                for part in self._read(examples, range(len(examples))):
                    if self.pause_wanted():
                        return False
                    self.objective.prepare(part)
        return True

    def _read(self, examples: Examples[Any], places: range) -> Iterator[list[Any]]:
        """Read the examples at `places` in parts, those of like lengths together."""
        lengths = np.frombuffer(examples.lengths, np.uint32)[places.start : places.stop]
        order = np.argsort(lengths, kind="stable")
        return self._parts(examples[places.start + int(place)] for place in order)

    def _parts(self, batch: Iterable[Any]) -> Iterator[list[Any]]:
        return micro_batches(batch, MICRO_BATCH_TOKENS, self.objective.computed_tokens)

    def _step(self, step: int, batch: Sequence[Any], peak: float) -> StepMetrics | None:
        """Take one optimizer step; return its numbers, or None when the run has failed."""
        units = self.objective.units(batch)
        if not units:  # all that was to be learned of the batch was cut off
            return StepMetrics(step, self.total_steps, 0.0, 0.0)
        found = Sums()
        for part in self._parts(batch):
            loss = self.objective.loss(part)
            if loss is not None:
                share = loss.mean * (loss.sums.units / units)
                share.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                found += loss.sums
        value = found.loss / units
        rate = learning_rate_at(step, self.total_steps, peak)
        norm = self.adapter.step(rate)
        # Guessing evenly costs ln(vocabulary): twice that is no learning, finite as it may be.
        worst = 2 * math.log(self.network.head.weight.shape[0])
        diverged = found.nll > worst * found.tokens
        if diverged or not (math.isfinite(value) and math.isfinite(norm)):
            self._diverged(
                f"at step {step} the loss was {value}, the answers' {found.nll / found.tokens} nats"
                f" a token, and the gradient's norm {norm}",
                step - 2,  # the step before has made weights that this one found to be bad
            )
            return None
        numbers = found.metrics("train")
        return StepMetrics(
            step, self.total_steps, **numbers, learning_rate=rate, gradient_norm=norm
        )

    def _diverged(self, how: str, good_step: int) -> None:
        message = (
            f"Training diverged: {how}. Set a lower learning_rate_multiplier; the last good"
            " checkpoint is kept."
        )
        self.report(RunFailed("non_finite_loss", message, good_step))

    def _look(self, metrics: StepMetrics) -> StepMetrics:
        """Return the metrics with those of one validation batch, in each of VALIDATIONS steps."""
        every = max(1, self.total_steps // VALIDATIONS)
        if not self.validation or metrics.step % every:
            return metrics
        size = self.run.hyperparameters.batch_size
        start = (metrics.step // every - 1) * size % len(self.validation)
        places = range(len(self.validation))[start : start + size]
        return self._validated(metrics, "valid", self.validation, places)

    def _progress(self, done: int) -> Progress:
        """Return what is to come after so many steps: their share of the whole."""
        epochs, size = self.run.hyperparameters.n_epochs, self.run.hyperparameters.batch_size
        held_out = [] if self.validation is None else self.validation.lengths
        looks = VALIDATIONS * size * sum(held_out) // max(1, len(held_out))
        whole = epochs * sum(self.training.lengths), epochs * sum(held_out) + looks
        learned, seen = (part * (self.total_steps - done) // self.total_steps for part in whole)
        proven = min(epochs, _PUBLISHED) * sum(held_out[:_PROVEN] or [_QUESTION] * _QUESTIONS)
        return Progress(learned, seen, proven)

    def _validated(
        self, metrics: StepMetrics, of: str, examples: Examples[Any], places: range
    ) -> StepMetrics:
        """Return the metrics with those of the examples at `places`, if anything of them counts."""
        found = Sums()
        with torch.no_grad():
            for part in self._read(examples, places):
                loss = self.objective.loss(part)
                if loss is not None:
                    found += loss.sums
                self.progress.seen(sum(map(self.objective.computed_tokens, part)))
        return replace(metrics, **found.metrics(of)) if found.units else metrics

    def _checkpoint(self, epoch: int, metrics: StepMetrics) -> EpochCheckpoint:
        weights, config = adapter_file.write(self.adapter.weights(), self.run.base)
        key = f"{self.run.output_prefix}/checkpoint-{metrics.step}"
        self.blobs.put(f"{key}/{adapter_file.WEIGHTS}", weights)
        self.blobs.put(f"{key}/{adapter_file.CONFIG}", config)
        adapter = Adapter(key, hashlib.sha256(weights).hexdigest())
        return EpochCheckpoint(metrics.step, epoch + 1, adapter, metrics)

    def _snapshot(self, step: int) -> Snapshot:
        key = f"{self.run.output_prefix}/snapshot-{step}.safetensors"
        state = self.adapter.state(self.arithmetic, self.objective.kept())
        self.blobs.put(key, state)
        return Snapshot(step, key, hashlib.sha256(state).hexdigest())

    def _load(self, key: str, renderer: ChatRenderer, cache: Path) -> TrainingFile:
        return load_examples(
            lambda: self.blobs.stream(key),
            renderer,
            self.network.context_tokens,
            base_digest=self.run.base_digest,
            folder=cache,
            make_room=partial(self.trainer._caches.make_room, self.run.job_prefix),
        )

    def _start_from(self) -> adapter_file.AdapterWeights | None:
        start = self.run.start_from
        if start is None:
            return None
        weights = self.blobs.read(f"{start.key}/{adapter_file.WEIGHTS}")
        if hashlib.sha256(weights).hexdigest() != start.digest:
            raise adapter_file.BadAdapter(f"the adapter at {start.key} is not the one published")
        config = self.blobs.read(f"{start.key}/{adapter_file.CONFIG}")
        return adapter_file.read(weights, config, self.network.shapes(), MAX_RANK)
