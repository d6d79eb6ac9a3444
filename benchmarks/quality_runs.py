"""Runs of the quality benchmark: a task's examples learned, its questions answered, both kept.

Training is a job's: the same trainer, from the same lines. Answers are those of the engine as it
serves, in this process, greedy and many at a time. What a run gave is kept by a hash of all that it
follows from, so that a benchmark that was broken off goes on where it was.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import torch
from engine_forms import engine
from quality_tasks.task import Item, Task

import tunery
from tunery.datasets.text import TextStream
from tunery.domain.errors import TuneryError
from tunery.domain.jobs import Adapter, EpochCheckpoint, Hyperparameters, StepMetrics
from tunery.domain.ports.engine import Delta
from tunery.domain.ports.training import RunFailed, TrainingReport, TrainingRun
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import Scheduler
from tunery.engine.seats import Limits
from tunery.model import adapter_file
from tunery.settings import Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.training.cache_folder import CacheFolder
from tunery.training.loop import LocalTrainer
from tunery.wiring.storage import native_folder, open_directory, renderer_of

ROWS = 16  # answers in the making at once


class Result(TypedDict):
    """What is kept of a run. A base's has neither steps nor losses."""

    answers: list[str]
    steps: int
    last_loss: float
    train_s: float
    answer_s: float


class Runs:
    """Trains and asks, or knows already."""

    def __init__(self, cache: Path, form: str, *, again: bool) -> None:
        """`form` is the engine's arithmetic; `again` has what is known found anew."""
        self._cache, self._form, self._again = cache, form, again
        self._base = open_directory(Settings()).base()
        self._renderer = renderer_of(self._base)
        self._engine: Scheduler | None = None

    def base(self, task: Task, seed: int) -> list[str]:
        """Return the base's answers to the test questions of a seed, instructions and all."""
        items = task.test(seed)

        def run() -> Result:
            began = time.monotonic()
            answers = self._answers(task, task.instructions, items, None)
            return Result(
                answers=answers,
                steps=0,
                last_loss=0.0,
                train_s=0.0,
                answer_s=time.monotonic() - began,
            )

        asked = [task.instructions, task.answer_tokens, [item.question for item in items]]
        return self._kept(f"base-{seed}", {"asked": asked}, run)["answers"]

    def tuned(self, task: Task, seed: int, numbers: Hyperparameters) -> Result:
        """Return what a model answers that was tuned with these numbers, data and order by seed."""
        lines = "".join(json.dumps(_line(task, item)) + "\n" for item in task.train(seed)).encode()
        items = task.test(seed)

        def run() -> Result:
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                last, weights, config = self._train(Path(folder), lines, seed, numbers)
                trained = time.monotonic()
                name = f"{task.name}@{hashlib.sha256(weights).hexdigest()}"
                stack = self._scheduler().adapters
                stack.load(name, adapter_file.read(weights, config, stack.shapes, stack.max_rank))
                answers = self._answers(task, task.prompt, items, name)
                stack.unload(name)
            return Result(
                answers=answers,
                steps=last.step,
                last_loss=last.train_loss,
                train_s=trained - began,
                answer_s=time.monotonic() - trained,
            )

        config = {
            "lines": hashlib.sha256(lines).hexdigest(),
            "asked": [task.prompt, task.answer_tokens, [item.question for item in items]],
            "hyperparameters": asdict(numbers),
            "seed": seed,
        }
        return self._kept(f"{task.name}-{seed}", config, run)

    def _kept(self, name: str, config: dict[str, Any], run: Callable[[], Result]) -> Result:
        whole = {
            **config,
            "base": self._base.digest,
            "form": self._form,
            "versions": [tunery.__version__, torch.__version__],
        }
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        file = self._cache / f"quality-{name}-{digest[:20]}.json"
        if file.exists() and not self._again:
            known: Result = json.loads(file.read_text())
            return known
        result: Result = run()
        self._cache.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part")
        aside.write_text(json.dumps(result))
        aside.rename(file)
        return result

    def _train(
        self, folder: Path, lines: bytes, seed: int, numbers: Hyperparameters
    ) -> tuple[StepMetrics, bytes, bytes]:
        """Return the last step's metrics and the adapter's two files."""
        blobs = LocalBlobStore(folder / "blobs")
        blobs.put("train.jsonl", lines)
        base = self._base
        caches = CacheFolder(folder / "caches", 2**30)
        native = native_folder(Settings())
        trainer = LocalTrainer(blobs, Path(base.path), base.learning_rate, 0, 1e9, caches, native)
        last: StepMetrics | None = None
        made: Adapter | None = None

        def report(value: TrainingReport) -> None:
            nonlocal last, made
            if isinstance(value, StepMetrics):
                last = value
            elif isinstance(value, EpochCheckpoint):
                made = value.adapter
            elif isinstance(value, RunFailed):
                sys.exit(f"quality: training failed: {value.message}")

        run = TrainingRun(
            job_id="ftjob-quality",
            base=base.name,
            base_digest=base.digest,
            training_key="train.jsonl",
            validation_key=None,
            hyperparameters=numbers,
            seed=seed,
            output_prefix="jobs/quality/attempt-1",
        )
        trainer.train(run, report)
        if last is None or made is None:
            sys.exit("quality: training ended without a step and a checkpoint.")
        files = (blobs.read(f"{made.key}/{n}") for n in (adapter_file.WEIGHTS, adapter_file.CONFIG))
        weights, config = files
        return last, weights, config

    def _scheduler(self) -> Scheduler:
        if self._engine is None:
            limits = Limits(
                rows=ROWS,
                context_tokens=2048,
                queue=10_000,
                prefill_tokens=512,
                step_s=60.0,  # nobody waits for a first token here
                cache_bytes=2**30,
            )
            self._engine = engine(Settings(), self._form, 2, limits)
        return self._engine

    def _answers(
        self, task: Task, system: str, items: Sequence[Item], adapter: str | None
    ) -> list[str]:
        scheduler = self._scheduler()
        texts = [""] * len(items)
        ends: list[TuneryError | None] = []
        for place, item in enumerate(items):

            def heard(delta: Delta, place: int = place) -> None:
                texts[place] += delta.text

            said = [("system", system), ("user", item.question)]
            row = Row(
                prompt_ids=self._renderer.prompt([{"role": r, "content": c} for r, c in said]),
                adapter=adapter,
                max_tokens=task.answer_tokens,
                sampling=Sampling(0, 1, None),
                text=TextStream(self._renderer.tokenizer, ()),
                on_delta=heard,
                on_end=ends.append,
                tenant="quality",
            )
            scheduler.submit(row)
        while scheduler.active or scheduler.waiting:
            scheduler.step()
        failed = next((end for end in ends if end is not None), None)
        if failed is not None or len(ends) != len(items):
            sys.exit(f"quality: the engine answered {len(ends)} of {len(items)}: {failed}")
        return texts


def _line(task: Task, item: Item) -> dict[str, Any]:
    said = [("system", task.prompt), ("user", item.question), ("assistant", item.answer)]
    return {"messages": [{"role": role, "content": content} for role, content in said]}
