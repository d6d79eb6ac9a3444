"""Training, side by side with TRL: tokens a second, memory, and what was learned meanwhile.

The same base, chats (500 of about 250 tokens; a set with one system prompt for all, and one
without), rank, batch size, rate and schedule for TRL's SFTTrainer with PEFT, for this trainer, and
for this trainer with each of its tricks switched off. Every row is a process of its own, on every
core; rows take turns. 24 steps are timed after 4 that are not. On a machine that others use, only
processor time says something, and that with --threads 1: threads that wait for each other spin.

    .venv/bin/python benchmarks/training.py --peer-python VENV/bin/python [--quick] [--json PATH]

VENV is any environment with TRL (`pip install torch trl peft datasets`, with this one's torch). The
full form takes hours, nearly all of them TRL's. Rows, for --rows:

    trl                  SFTTrainer, SFTConfig, LoraConfig as TRL's documentation shows them: bf16
                         autocast over fp32 weights, gradient checkpointing, loss on every token
    trl-assistant        the same, its loss on the assistant's tokens only, as this trainer's is
    trl-bf16             bf16 autocast without checkpointing: quicker, and more memory
    trl-bf16-assistant   the same, its loss on the assistant's tokens only
    trl-fp32             without autocast; slow, so only where it is asked for
    tunery               this trainer, as a job runs it
    tunery-without-X     without one trick: training_own.py lists and describes them

Columns: real tokens a second (padding is none), supervised tokens a second, seconds of processor
time for 1,000 real tokens, billions of operations a second as training_work.py counts them and as a
share of the best bf16 matrix product of this run, the most memory that the process ever held, and
the loss after the last step on 60 chats that no row has seen, on the assistant's tokens, all
computed by the same fp32 model. Ratios are of medians, by the real token; the headline is at equal
supervised tokens: the seconds of TRL's assistant rows, which learn the tokens that we learn, over
ours.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import training_data
from training_peer import VARIANTS
from training_work import Sizes, Step, cores, total

from tunery.domain.models import BaseModel
from tunery.settings import Settings
from tunery.wiring.storage import open_directory

HERE = Path(__file__).parent
OWN = "tunery"
# Named here too, so that this process, which waits beside every row, need not import torch.
TRICKS = (
    "bf16",
    "supervised-logits",
    "length-sort",
    "packing",
    "sharing",
    "fused-layers",
    "native-operations",
    "grouped-attention",
)
ON_REQUEST = ("trl-fp32",)
RANK, ALPHA, SEED, BATCH = 16, 32, 1, 8
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rows: tuple[str, ...]
    sets: tuple[str, ...]
    repeats: int
    warm_up: int
    steps: int
    judged: int  # held-out examples


ROWS = (*VARIANTS, OWN, *(f"{OWN}-without-{trick}" for trick in TRICKS))
FULL = Plan(
    tuple(row for row in ROWS if row not in ON_REQUEST),
    training_data.SETS,
    1,
    4,
    24,
    training_data.HELD_OUT,
)
QUICK = Plan(("trl-assistant", "trl-bf16-assistant", OWN), ("shared",), 1, 2, 4, 16)


# ---- processes


def child(command: Sequence[object], what: str, threads: int) -> Any:
    """Run a part of this benchmark by itself; return the JSON of its last line."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [str(part) for part in command], env=env, check=False, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        sys.exit(f"training: {what} failed: {done.stderr.strip()[-1500:]}")
    return json.loads(lines[-1])


def train(row: str, options: argparse.Namespace, base: BaseModel, data: Path, out: Path) -> Row:
    """Run one row once."""
    plan: Plan = options.plan
    steps = plan.warm_up + plan.steps
    told: list[object] = [
        "--data",
        data,
        "--out",
        out,
        "--batch",
        BATCH,
        "--steps",
        steps,
        "--seed",
        SEED,
    ]
    if row in VARIANTS:
        script: list[object] = [options.peer_python, HERE / "training_peer.py", "--variant", row]
        whole = -(-training_data.EXAMPLES // BATCH)
        told += ["--base", base.path, "--rank", RANK, "--alpha", ALPHA]
        told += ["--rate", base.learning_rate, "--warmup-steps", min(20, round(whole * 0.1))]
    else:
        script = [sys.executable, HERE / "training_own.py"]
        if row != OWN:
            script += ["--without", row.removeprefix(f"{OWN}-without-")]
    return dict(child([*script, *told], row, options.threads))


def figures(measured: Row, plan: Plan, sizes: Sizes) -> Row:
    """Return what one run of a row comes to."""
    timed = [Step(**step) for step in measured["steps"]][plan.warm_up :]
    if len(timed) != plan.steps:
        sys.exit(f"training: {len(timed)} steps were timed; {plan.steps} were asked for.")
    whole = total(timed)
    return {
        "tokens_per_s": whole.tokens / whole.seconds,
        "supervised_per_s": whole.supervised / whole.seconds,
        "processor_s_per_1000": 1000 * whole.processor_s / whole.tokens,
        "gflops": whole.operations(sizes) / whole.seconds / 1e9,
        "peak_gb": measured["peak_bytes"] / 1e9,
        "threads": measured["threads"],
        "padded_share": 1 - whole.tokens / whole.computed,
    }


# ---- the rows


def measure(options: argparse.Namespace, base: BaseModel, folder: Path) -> tuple[list[Row], Row]:
    """Return every row's medians, and the machine's peak."""
    plan: Plan = options.plan
    measured: dict[tuple[str, str], list[Row]] = {}
    losses: dict[tuple[str, str], float] = {}
    versions: dict[str, dict[str, str]] = {}
    peak = child(
        [sys.executable, HERE / "training_work.py", "--base", base.path, "--tokens", BATCH * 256],
        "the peak",
        options.threads,
    )
    sizes = Sizes(**peak.pop("sizes"))
    for which in plan.sets:
        data, held_out = training_data.write(folder, which)
        for repeat in range(plan.repeats):
            for row in plan.rows:
                out = folder / f"{which}-{repeat}-{row}"
                raw = train(row, options, base, data, out)
                versions["TRL" if row in VARIANTS else OWN] = raw["versions"]
                found = figures(raw, plan, sizes)
                measured.setdefault((which, row), []).append(found)
                print(
                    f"  {which}, {row}: {found['tokens_per_s']:.0f} tokens/s,"
                    f" {found['processor_s_per_1000']:.2f} s of processor time for 1,000,"
                    f" {found['peak_gb']:.2f} GB",
                    file=sys.stderr,
                    flush=True,
                )
        if options.no_judge:
            continue
        judged = {row: str(folder / f"{which}-0-{row}") for row in plan.rows}
        command: list[object] = [sys.executable, HERE / "training_judge.py"]
        command += ["--base", base.path, "--held-out", held_out, "--examples", plan.judged]
        found = child([*command, *judged.values()], "the judge", options.threads)
        losses[which, ""] = found[""]
        losses |= {(which, row): found[out] for row, out in judged.items()}
    best = max(peak["bf16"].values())
    rows: list[Row] = [
        {"set": which, "row": row, "loss": losses.get((which, row))}
        | {key: statistics.median(run[key] for run in repeats) for key in repeats[0]}
        for (which, row), repeats in measured.items()
    ]
    for one in rows:
        one["of_peak"] = one["gflops"] / best
    peak |= {"best_bf16": best, "best_fp32": max(peak["fp32"].values()), "versions": versions}
    peak["loss_of_base"] = {which: losses.get((which, "")) for which in plan.sets}
    return rows, peak


def ratios_of(rows: Sequence[Row]) -> dict[str, float]:
    """Return what the rows say of each other, set by set."""
    by_name = {(row["set"], row["row"]): row for row in rows}
    found: dict[str, float] = {}
    for (which, name), row in by_name.items():
        own = by_name.get((which, OWN))
        if own is None or name == OWN:
            continue
        # Both supervise the same tokens of the same chats, so that for as many of them both need as
        # many real tokens. The steps that were timed hold more or fewer of them by chance.
        what = (
            "seconds for the same supervised tokens" if name.endswith("-assistant") else "seconds"
        )
        found[f"{which}: {what}, {name} / {OWN}"] = own["tokens_per_s"] / row["tokens_per_s"]
        used = row["processor_s_per_1000"] / own["processor_s_per_1000"]
        found[f"{which}: processor time a token, {name} / {OWN}"] = used
        found[f"{which}: peak memory, {OWN} / {name}"] = own["peak_gb"] / row["peak_gb"]
    return found


def show(rows: Sequence[Row], peak: Row, ratios: dict[str, float]) -> None:
    """Print the table."""
    heads = ("tokens/s", "superv./s", "CPU s/1000", "GFLOP/s", "of peak", "peak GB", "loss")
    print(f"{'':36}{''.join(f'{head:>11}' for head in heads)}")
    for row in rows:
        cells = f"{row['tokens_per_s']:11.0f}{row['supervised_per_s']:11.0f}"
        cells += f"{row['processor_s_per_1000']:11.2f}{row['gflops']:11.0f}"
        cells += f"{row['of_peak']:11.0%}{row['peak_gb']:11.2f}"
        cells += "" if row["loss"] is None else f"{row['loss']:11.4f}"
        print(f"{row['set'] + ', ' + row['row']:36}{cells}")
    print(f"best product, GFLOP/s: bf16 {peak['best_bf16']:.0f}, fp32 {peak['best_fp32']:.0f}")
    for name, value in ratios.items():
        print(f"{name:72}{value:8.2f}")


def arguments() -> argparse.Namespace:
    """Return what was asked for, `plan` included."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, and short ones")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--peer-python", type=Path, help="an interpreter that has TRL")
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="only these")
    parser.add_argument("--sets", nargs="+", choices=training_data.SETS, help="only these")
    parser.add_argument("--repeats", type=int, help="of each row; medians are shown")
    parser.add_argument("--steps", type=int, help="that are timed")
    parser.add_argument("--threads", type=int, default=cores(), help="of each process")
    parser.add_argument("--no-judge", action="store_true", help="leave the losses out")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    rows = tuple(options.rows or plan.rows)
    if options.peer_python is None:
        print(
            "No TRL rows: make a venv, `pip install torch trl peft datasets` there, and give its"
            " interpreter as --peer-python.",
            file=sys.stderr,
        )
        rows = tuple(row for row in rows if row not in VARIANTS)
        if not rows:
            parser.error("got only TRL's rows for --rows; they need --peer-python")
    most = training_data.EXAMPLES // BATCH - plan.warm_up
    steps = plan.steps if options.steps is None else options.steps
    if not 0 < steps <= most:
        parser.error(f"got --steps {steps}; the data are enough for 1 to {most}")
    repeats = plan.repeats if options.repeats is None else options.repeats
    if repeats < 1:
        parser.error(f"got --repeats {repeats}; give at least 1")
    sets = tuple(options.sets or plan.sets)
    options.plan = Plan(rows, sets, repeats, plan.warm_up, steps, plan.judged)
    return options


def main() -> None:
    """Measure and print."""
    options = arguments()
    load = os.getloadavg()[0]
    if load > cores() / 4:
        print(f"The machine is busy (load {load:.1f} on {cores()} cores): trust only ratios.")
    with tempfile.TemporaryDirectory() as folder:
        rows, peak = measure(options, open_directory(Settings()).base(), Path(folder))
    ratios = ratios_of(rows)
    show(rows, peak, ratios)
    if options.json:
        machine = {"cpus": cores(), "machine": platform.processor() or platform.machine()}
        machine |= {"load_before": load, **peak}
        plan: Plan = options.plan
        how = {"repeats": plan.repeats, "steps": plan.steps, "batch": BATCH, "rank": RANK}
        document = {"machine": machine, "how": how, "rows": rows, "ratios": ratios}
        options.json.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
