"""What tuning is worth on five kinds of task, and whether "auto" is as good as a small sweep.

For each task a base, told all that there is to know, and models tuned with short prompts answer the
same unseen questions; data, order and questions follow from the seed. A sweep goes from auto one
step to each side: half and twice the rate, the epochs, the batch. Its best point on the first seed
is trained on the other seeds too, and held against auto question by question. Auto holds up if it
is at most 2 points behind, or if the 95% interval of the difference has 0 in it.

    .venv/bin/python benchmarks/quality.py [--quick] [--tasks NAME ...] [--seeds N]
        [--sweep [rate] [epochs] [batch]] [--json PATH]

A run takes one to five minutes on two cores, the whole some hours; what is done is kept, by a hash
of all that it follows from, in --cache, and the benchmark goes on from there. The task "language"
needs `pip install lingua-language-detector`. Exits with 1 where auto does not hold up.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunery.cli.libraries import RUN_SPINS, quiet_libraries

quiet_libraries(RUN_SPINS)  # before torch is imported, as the worker's child does
sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))  # the demo's task

import torch
from engine_forms import FORMS
from quality_runs import Runs
from quality_statistics import Estimate, difference, share
from quality_sweep import AXES, holds_up, neighbours
from quality_tasks.intent import INTENT
from quality_tasks.labels import LABELS_10, LABELS_40
from quality_tasks.language import LANGUAGE
from quality_tasks.sql import SQL
from quality_tasks.task import Task
from quality_tasks.tone import TONE

from tunery.domain.hyperparameters import resolve
from tunery.domain.jobs import Hyperparameters, RequestedHyperparameters

TASKS = {task.name: task for task in (INTENT, LABELS_10, LABELS_40, LANGUAGE, TONE, SQL)}
QUICK = ("tone",)
SEEDS = 3
CACHE = Path("~/.cache/tunery/benchmarks")


@dataclass(frozen=True, slots=True)
class Point:
    """Numbers to train with, and the answers on each seed that were right."""

    name: str
    numbers: Hyperparameters
    right: dict[int, list[bool]]

    def on(self, seeds: Sequence[int]) -> list[bool]:
        """Return which answers on these seeds were right."""
        return [one for seed in seeds for one in self.right[seed]]


def auto_of(task: Task) -> Hyperparameters:
    """Return what the service chooses for the task's file."""
    return resolve(RequestedHyperparameters(), len(task.train(1)))


def asked(runs: Runs, task: Task, point: Point, seed: int) -> None:
    """Have a point trained and asked on a seed, and say what it reached."""
    result = runs.tuned(task, seed, point.numbers)
    pairs = zip(task.test(seed), result["answers"], strict=True)
    point.right[seed] = [task.judge(item, answer) for item, answer in pairs]
    n = point.numbers
    print(
        f"  {task.name}, seed {seed}, {point.name}: {sum(point.right[seed])} of"
        f" {len(point.right[seed])} right; {n.n_epochs} epochs of batches of {n.batch_size} at"
        f" {n.learning_rate_multiplier:g}, {result['steps']} steps in {result['train_s']:.0f} s,"
        f" last loss {result['last_loss']:.3f}",
        file=sys.stderr,
        flush=True,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """What is told of a task."""

    name: str
    examples: int
    questions: int
    numbers: Hyperparameters
    base: Estimate
    auto: Estimate
    by_seed: list[float]
    sweep: dict[str, float]  # on the first seed
    best: str | None = None
    best_share: Estimate | None = None
    apart: Estimate | None = None  # auto less the best

    @property
    def holds(self) -> bool:
        """Whether auto is as good as the best of the sweep, if there was one."""
        return self.apart is None or holds_up(self.apart)


def measured(runs: Runs, task: Task, seeds: Sequence[int], axes: Sequence[str]) -> Row:
    """Return a task's figures, with those of a sweep over these axes, if there are any."""
    base: list[bool] = []
    for seed in seeds:
        pairs = zip(task.test(seed), runs.base(task, seed), strict=True)
        base += [task.judge(item, answer) for item, answer in pairs]
    auto = Point("auto", auto_of(task), {})
    for seed in seeds:
        asked(runs, task, auto, seed)
    found = neighbours(auto.numbers, axes)
    points = [auto, *(Point(name, numbers, {}) for name, numbers in found.items())]
    for point in points[1:]:
        asked(runs, task, point, seeds[0])
    row = Row(
        task.name,
        len(task.train(seeds[0])),
        len(base),
        auto.numbers,
        share(base),
        share(auto.on(seeds)),
        [sum(auto.right[seed]) / len(auto.right[seed]) for seed in seeds],
        {point.name: share(point.on(seeds[:1])).value for point in points},
    )
    if not points[1:]:
        return row
    groups = [item.group for seed in seeds for item in task.test(seed)]
    best = max(points[1:], key=lambda point: sum(point.right[seeds[0]]))
    for seed in seeds[1:]:
        asked(runs, task, best, seed)
    return replace(
        row,
        best=best.name,
        best_share=share(best.on(seeds)),
        apart=difference(auto.on(seeds), best.on(seeds), groups),
    )


def told(estimate: Estimate, *, signed: bool = False) -> str:
    """Return an estimate in percent, or in points with their sign."""
    one = "{:+.1f}" if signed else "{:.1f}"
    value, low, high = (one.format(100 * x) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def show(rows: Sequence[Row]) -> None:
    """Print the tables."""
    print(
        f"{'right, % [95%]':<12}{'examples':>9}{'asked':>7}{'base':>20}{'tuned, auto':>21}  seeds"
    )
    for row in rows:
        seeds = ", ".join(f"{100 * one:.0f}" for one in row.by_seed)
        print(
            f"{row.name:<12}{row.examples:>9}{row.questions:>7}{told(row.base):>20}"
            f"{told(row.auto):>21}  {seeds}"
        )
    swept = [row for row in rows if row.best_share is not None and row.apart is not None]
    if not swept:
        return
    print(f"\n{'auto':<12}{'sweep best':>12}{'its share':>21}{'auto less it':>23}  holds up")
    for row in swept:
        assert row.best_share is not None
        assert row.apart is not None
        print(
            f"{row.name:<12}{row.best:>12}{told(row.best_share):>21}"
            f"{told(row.apart, signed=True):>23}  {'yes' if row.holds else 'NO'}"
        )
    print("\nfirst seed:")
    for row in swept:
        points = ", ".join(f"{name} {100 * value:.0f}" for name, value in row.sweep.items())
        print(f"  {row.name}: {points}")


def main() -> None:
    """Measure, print and say whether auto holds up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many, from 1")
    parser.add_argument(
        "--sweep", nargs="*", choices=AXES, help="hold auto against its neighbours; all, if unnamed"
    )
    parser.add_argument("--quick", action="store_true", help=f"{' and '.join(QUICK)}, one seed")
    parser.add_argument("--form", choices=FORMS, default="eight", help="the engine's arithmetic")
    parser.add_argument("--again", action="store_true", help="do anew what is kept")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where results are kept")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"got --seeds {options.seeds}; give 1 or more")
    if options.quick:
        options.tasks, options.seeds = list(QUICK), 1
    if LANGUAGE.name in options.tasks and importlib.util.find_spec("lingua") is None:
        parser.error("the task language needs lingua: pip install lingua-language-detector")
    runs = Runs(options.cache.expanduser(), options.form, again=options.again)
    seeds = range(1, options.seeds + 1)
    axes = [] if options.sweep is None else options.sweep or AXES
    rows = [measured(runs, TASKS[name], seeds, axes) for name in options.tasks]
    show(rows)
    if options.json:
        document = {
            "machine": {"cpus": os.cpu_count(), "torch": torch.__version__},
            "rows": [{**asdict(row), "holds": row.holds} for row in rows],
            "ratios": {row.name: row.auto.value - row.base.value for row in rows},
        }
        options.json.write_text(json.dumps(document, indent=2))
    sys.exit(not all(row.holds for row in rows))


if __name__ == "__main__":
    main()
