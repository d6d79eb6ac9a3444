"""What a step costs in each form of the engine's arithmetic: torch, native, native in eight bits.

Each form runs in a process of its own, with one thread and with all, in turns: prompts of 130
tokens are computed, then 1, 8 and 32 rows of them decode at temperature 1, of the base and of
8 adapters.

    .venv/bin/python benchmarks/arithmetic.py [--repeats 3] [--json PATH]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from engine_forms import FORMS, engine

from tunery.datasets.text import TextStream
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import Scheduler, idle_callback
from tunery.engine.seats import Limits
from tunery.model.adapter_file import AdapterWeights
from tunery.settings import Settings
from tunery.wiring.storage import open_directory, renderer_of

NAMES = ("torch, bfloat16", "native, bfloat16", "native, eight bits")
ROWS = (1, 8, 32)
PROMPT, STEPS, ADAPTERS, RANK = 130, 48, 8, 16


def with_adapters(form: str) -> Scheduler:
    """Return an engine of that form, and its adapters in place."""
    scheduler = engine(Settings(), form, ADAPTERS, Limits(max(ROWS), 1024, 256, 512, 60.0, 2**31))
    stack = scheduler.adapters
    generator = torch.Generator().manual_seed(4)

    def numbers(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.02).bfloat16()

    for number in range(ADAPTERS):
        layers = {
            name: (numbers(RANK, k), numbers(n, RANK)) for name, (n, k) in stack.shapes.items()
        }
        stack.load(str(number), AdapterWeights(RANK, 2.0 * RANK, layers))
    return scheduler


def measure(form: str) -> dict[str, float]:
    """Return the milliseconds of a step at each number of rows, and of a prompt's token."""
    tokenizer = renderer_of(open_directory(Settings()).base()).tokenizer
    scheduler = with_adapters(form)
    generator, found = torch.Generator().manual_seed(5), {}
    for name, tuned in (("base", False), ("8 adapters", True)):
        for count in ROWS:
            rows = []
            for number in range(count):
                ids = torch.randint(100, 40_000, (PROMPT,), generator=generator).tolist()
                adapter = str(number % ADAPTERS) if tuned else None
                sampling = Sampling(1.0, 1.0, number)
                text = TextStream(tokenizer, ())
                row = Row(ids, adapter, 999, sampling, text, idle_callback, idle_callback)
                rows.append(row)
                scheduler.submit(row)
            began = time.perf_counter()
            while not all(row.decodes for row in rows):
                scheduler.step()
            prompts = time.perf_counter() - began
            times = []
            for _ in range(STEPS):
                began = time.perf_counter()
                scheduler.step()
                times.append(time.perf_counter() - began)
            for row in rows:
                row.cancelled = True
            scheduler.step()
            found[f"{name}, step of {count}"] = 1e3 * statistics.median(times)
        found[f"{name}, prompt token"] = 1e3 * prompts / (count * PROMPT)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--form", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        print(json.dumps(measure(options.form)))
        return
    measured: dict[str, list[dict[str, float]]] = {}
    for _ in range(options.repeats):
        for name, form in zip(NAMES, FORMS, strict=True):
            for threads in sorted({1, os.cpu_count() or 1}):
                command = [sys.executable, __file__, "--form", form]
                env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
                done = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE)
                row = json.loads(done.stdout.splitlines()[-1])
                measured.setdefault(f"{name}, {threads} threads", []).append(row)
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in measured.items()
    }
    columns = next(iter(medians.values()))
    print("milliseconds".ljust(32) + "".join(f"{column:>24}" for column in columns))
    for name, row in medians.items():
        print(name.ljust(32) + "".join(f"{row[column]:24.2f}" for column in columns))
    if options.json:
        options.json.write_text(json.dumps(medians, indent=2))


if __name__ == "__main__":
    main()
