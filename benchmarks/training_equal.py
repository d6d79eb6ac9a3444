"""Whether quick training learns what exact training learns: validation loss against fp32 PEFT.

The trainer, as a job runs it, and transformers + PEFT + AdamW in fp32 take the same 150 steps: same
base, examples, order, schedule and first matrices. Every 25 steps both adapters, the trainer's
rounded as it is published, are loaded into the same fp32 model, which computes their loss on chats
that neither has seen. It is to stay within 1%; otherwise this exits with 1.

    .venv/bin/python benchmarks/training_equal.py [--set shared|plain] [--json PATH]

The reference takes minutes (about 150 tokens a second on two cores) and is kept, by a hash of all
that it follows from, in --cache.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunery.cli.libraries import RUN_SPINS, quiet_libraries

quiet_libraries(RUN_SPINS)  # before torch is imported, as the worker's child does

import torch
import training_data
import training_reference
from safetensors.torch import load

from tunery.datasets.batches import Example, epoch_batches
from tunery.domain.jobs import Hyperparameters, Snapshot, StepMetrics
from tunery.domain.models import BaseModel
from tunery.domain.ports.training import RunFailed, TrainingReport, TrainingRun
from tunery.model.base import compute_dtype, load_base
from tunery.settings import Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.training.adapter import ALPHA, RANK, LearnedAdapter
from tunery.training.cache_folder import CacheFolder
from tunery.training.loop import LocalTrainer, learning_rate_at
from tunery.wiring.storage import native_folder, open_directory, renderer_of

EPOCHS, BATCH, EVERY, SEED = 2, 4, 25, 1
WITHIN = 0.01
CACHE = Path("~/.cache/tunery/benchmarks")


class Course:
    """The run that both take: examples, batches and rates of every step."""

    def __init__(self, base: BaseModel, which: str, steps: int, folder: Path) -> None:
        self.base, self.steps = base, steps
        files = training_data.write(folder, which)
        wanted = files[0].read_text().splitlines(keepends=True)[: steps * BATCH // EPOCHS]
        self.lines = "".join(wanted).encode()
        self.held_out_lines = files[1].read_bytes()
        renderer = renderer_of(base)
        context = base.context_tokens
        examples = training_reference.examples([self.lines], renderer, context)
        self.held_out = training_reference.examples([self.held_out_lines], renderer, context)
        lengths = [len(example.token_ids) for example in examples]
        self.batches: list[list[Example]] = [
            [examples[index] for index in batch]
            for epoch in range(EPOCHS)
            for batch in epoch_batches(lengths, BATCH, seed=SEED, epoch=epoch)
        ]
        assert len(self.batches) == steps
        self.rates = [learning_rate_at(s, steps, base.learning_rate) for s in range(1, steps + 1)]
        self.looks = [*range(EVERY, steps, EVERY), steps]

    def config(self) -> dict[str, Any]:
        """Return all that the reference follows from, its code and libraries left out."""
        return {
            "base": self.base.digest,
            "data": hashlib.sha256(self.lines + self.held_out_lines).hexdigest(),
            "batches": [[len(one.token_ids) for one in batch] for batch in self.batches],
            "rates": self.rates,
            "looks": self.looks,
            "rank": RANK,
            "alpha": ALPHA,
            "seed": SEED,
        }


def told(who: str, step: int, loss: float) -> None:
    """Say how far it is: the table comes last."""
    print(f"  {who}, step {step}: {loss:.4f}", file=sys.stderr, flush=True)


def reference(course: Course) -> list[float]:
    """Return the reference's validation loss before the first step and at every look."""
    network = load_base(Path(course.base.path), torch.float32)
    first = LearnedAdapter.over(network, seed=SEED, start_from=None)
    model = training_reference.load(Path(course.base.path), RANK, ALPHA)
    training_reference.install(
        model, {name: (one.down, one.up) for name, one in first.layers.items()}
    )
    losses: list[float] = []

    def look(step: int) -> None:
        if step in (0, *course.looks):
            losses.append(training_reference.validation_loss(model, course.held_out))
            told("reference", step, losses[-1])

    look(0)
    training_reference.train(model, course.batches, course.rates, look)
    return losses


def kept(course: Course, cache: Path) -> list[float]:
    """Return the reference's losses, computed where they are not kept."""
    file = cache / f"training-{training_reference.fingerprint(course.config())}.json"
    if file.exists():
        found: list[float] = json.loads(file.read_text())["losses"]
        return found
    losses = reference(course)
    cache.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".part")
    aside.write_text(json.dumps({"losses": losses, **course.config()}))
    aside.rename(file)
    return losses


def own(course: Course, folder: Path) -> list[float]:
    """Return the trainer's losses at every look: it is paused there, and taken up again."""
    blobs = LocalBlobStore(folder)
    blobs.put("train.jsonl", course.lines)
    caches = CacheFolder(folder / "caches", 2**30)
    base = course.base
    trainer = LocalTrainer(
        blobs, Path(base.path), base.learning_rate, 0, 1e9, caches, native_folder(Settings())
    )
    snapshots: dict[int, Snapshot] = {}
    taken = 0

    def report(value: TrainingReport) -> None:
        nonlocal taken
        if isinstance(value, StepMetrics):
            taken = value.step
        elif isinstance(value, Snapshot):
            snapshots[value.step] = value
        elif isinstance(value, RunFailed):
            sys.exit(f"training_equal: {value.message}")

    def reached(step: int) -> Callable[[], bool]:
        return lambda: taken >= step

    for look in course.looks:
        run = TrainingRun(
            job_id="ftjob-equal",
            base=course.base.name,
            base_digest=course.base.digest,
            training_key="train.jsonl",
            validation_key=None,
            hyperparameters=Hyperparameters(EPOCHS, BATCH, 1.0),
            seed=SEED,
            output_prefix=f"attempt-{look}",
            resume_from=snapshots.get(taken),
        )
        trainer.train(run, report, reached(look))
    model = training_reference.load(Path(course.base.path), RANK, ALPHA)
    losses = []
    for step in course.looks:
        training_reference.install(model, published(blobs.read(snapshots[step].key)))
        losses.append(training_reference.validation_loss(model, course.held_out))
        told("tunery", step, losses[-1])
    return losses


def published(snapshot: bytes) -> training_reference.Layers:
    """Return a snapshot's matrices, rounded to the type in which an adapter is published."""
    tensors = load(snapshot)
    names = [name.removesuffix(".down") for name in tensors if name.endswith(".down")]
    dtype = compute_dtype()
    return {
        name: (tensors[f"{name}.down"].to(dtype), tensors[f"{name}.up"].to(dtype)) for name in names
    }


def show(course: Course, exact: Sequence[float], ours: Sequence[float]) -> float:
    """Print the table; return the largest share by which the two differ."""
    apart = [abs(b / a - 1) for a, b in zip(exact[1:], ours, strict=True)]
    print(f"{'validation loss':>16}{'fp32 PEFT':>12}{'tunery':>12}{'apart':>10}")
    print(f"{'step 0':>16}{exact[0]:12.4f}")
    for step, a, b, share in zip(course.looks, exact[1:], ours, apart, strict=True):
        print(f"{f'step {step}':>16}{a:12.4f}{b:12.4f}{share:10.2%}")
    return max(apart)


def main() -> None:
    """Train both, compare them, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=training_data.SETS, default=training_data.SETS[0])
    parser.add_argument("--steps", type=int, default=150, help=f"a multiple of {EVERY * EPOCHS}")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the reference is kept")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    most = training_data.EXAMPLES * EPOCHS // BATCH
    if options.steps % (EVERY * EPOCHS) or not 0 < options.steps <= most:
        parser.error(f"got --steps {options.steps}; give a multiple of {EVERY * EPOCHS}, to {most}")
    base = open_directory(Settings()).base()
    with tempfile.TemporaryDirectory() as name:
        course = Course(base, options.set, options.steps, Path(name))
        exact = kept(course, options.cache.expanduser())
        ours = own(course, Path(name) / "blobs")
    apart = show(course, exact, ours)
    print(f"At most {apart:.2%} apart; {WITHIN:.0%} is allowed.")
    if options.json:
        document = {
            "steps": course.looks,
            "reference": exact[1:],
            "tunery": ours,
            "before": exact[0],
            "apart": apart,
            "within": WITHIN,
            "torch": torch.__version__,
            "cpus": os.cpu_count(),
        }
        options.json.write_text(json.dumps(document, indent=2))
    sys.exit(apart > WITHIN)


if __name__ == "__main__":
    main()
