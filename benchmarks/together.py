"""What serving and training on the same machine take from each other.

A whole `tunery up` answers streams while a training run, started as the worker starts it, goes on
or stands still (SIGSTOP): serving alone, training alone and both together take turns, so that all
of them see the same machine. The clients ask again at once, which is the hardest load: between two
processes that both want every core, one's gain is the other's loss.

    .venv/bin/python benchmarks/together.py [--quick] [--json PATH]

The goals: together, the 95th percentiles of serving are at most 3 times those alone, and training
keeps at least half its steps a second.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tunery.domain.jobs import Hyperparameters, StepMetrics
from tunery.domain.ports.training import RunFailed, TrainingRun
from tunery.settings import DEFAULT_BASE, Settings
from tunery.wiring.storage import open_blobs, open_directory
from tunery.wiring.worker import build_executor
from tunery.worker.executor import ChildDied, LocalRun

CLIENTS = (1, 4)
ANSWER_TOKENS = 64
BATCH, EXAMPLES, EPOCHS = 2, 2_000, 50  # small, so that many steps fit into a turn
WORDS = ("order", "parcel", "refund", "invoice", "account", "password", "address", "delivery")


def words(count: int, random_: random.Random) -> str:
    """Return text of about `count` tokens that no other call returns."""
    return " ".join(f"{random_.choice(WORDS)} {random_.randrange(10)}" for _ in range(count // 2))


# ---- serving


class Timings:
    """Seconds to the first token and between two tokens of one answer."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.between: list[float] = []
        self.tokens = 0

    def percentiles(self) -> dict[str, float]:
        """Return p50 and p95 of both, in milliseconds."""
        found: dict[str, float] = {}
        for name, seconds in (("first", self.first), ("between", self.between)):
            cuts = statistics.quantiles(seconds, n=100, method="inclusive")
            found |= {f"{name}_p50_ms": cuts[49] * 1000, f"{name}_p95_ms": cuts[94] * 1000}
        return found


async def answer(client: httpx2.AsyncClient, prompt: str, timings: Timings) -> None:
    """Ask for one stream and time its pieces."""
    body = {
        "model": DEFAULT_BASE,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "logit_bias": {"2": -100},  # the token that ends an answer: all are of one length
        "stream": True,
    }
    last = started = time.perf_counter()
    async with client.stream("POST", "/chat/completions", json=body) as response:
        if response.status_code != 200:
            sys.exit(f"together: {(await response.aread())[:300]!r}")
        async for line in response.aiter_lines():
            if '"content":"' not in line or '"content":""' in line:
                continue
            now = time.perf_counter()
            (timings.first if last == started else timings.between).append(now - last)
            last = now
            timings.tokens += 1


async def serve(env: dict[str, str], clients: int, seconds: float, timings: Timings) -> None:
    """Have `clients` ask again and again for `seconds`."""
    end = time.perf_counter() + seconds
    headers = {"authorization": f"Bearer {env['OPENAI_API_KEY']}"}

    async def one(number: int, client: httpx2.AsyncClient) -> None:
        random_ = random.Random(time.time_ns() + number)
        while time.perf_counter() < end:
            await answer(client, words(120, random_), timings)

    async with httpx2.AsyncClient(
        base_url=env["OPENAI_BASE_URL"], headers=headers, timeout=120, trust_env=False
    ) as client:
        await asyncio.gather(*(one(number, client) for number in range(clients)))


@contextmanager
def service(folder: Path) -> Iterator[dict[str, str]]:
    """Run `tunery up`; give the variables of its env file."""
    log = folder / "up.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunery", "up", "--data", str(folder), "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "TUNERY_LOG_LEVEL": "info"},
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                lines = (folder / "env").read_text().splitlines()
                env = {
                    k: "".join(shlex.split(v)) for k, _, v in (one.partition("=") for one in lines)
                }
                ready = env["OPENAI_BASE_URL"].removesuffix("/v1") + "/readyz"
                built = b"native operations" in log.read_bytes()  # or not to be had
                if built and httpx2.get(ready, trust_env=False, timeout=5).status_code == 200:
                    break
            except (OSError, KeyError, httpx2.HTTPError):
                pass
            if time.monotonic() > deadline:
                sys.exit(f"together: not ready within 300 s: {log.read_text()[-1000:]}")
            time.sleep(0.1)
        yield env
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


# ---- training


class Training:
    """A run whose steps are timed, that stands still unless it is told to go on."""

    def __init__(self, settings: Settings) -> None:
        base = open_directory(settings).base()
        random_ = random.Random(1)
        lines = (
            {
                "messages": [
                    {"role": "user", "content": words(60, random_)},
                    {"role": "assistant", "content": words(30, random_)},
                ]
            }
            for _ in range(EXAMPLES)
        )
        text = "\n".join(map(json.dumps, lines)).encode()
        open_blobs(settings).put("together/train.jsonl", text)
        run = TrainingRun(
            job_id="ftjob-together",
            base=base.name,
            base_digest=base.digest,
            training_key="together/train.jsonl",
            validation_key=None,
            hyperparameters=Hyperparameters(EPOCHS, BATCH, 1.0),
            seed=1,
            output_prefix="together/attempt-1",
        )
        self._run: LocalRun = build_executor(settings).start(run)
        self._steps: list[float] = []
        self._stopping = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while not self._run.finished:
                for report in self._run.reports(1.0):
                    if isinstance(report, StepMetrics):
                        self._steps.append(time.perf_counter())
                    elif isinstance(report, RunFailed):
                        raise ChildDied(report.message)
        except ChildDied as error:
            if not self._stopping:
                print(f"together: {error}", file=sys.stderr)
                os._exit(1)

    def warm_up(self, steps: int = 5) -> None:
        """Wait until it is under way."""
        while len(self._steps) < steps:
            time.sleep(0.1)

    @contextmanager
    def going_on(self, intervals: list[float]) -> Iterator[None]:
        """Let it go on meanwhile; the seconds of its whole steps go to `intervals`."""
        first = len(self._steps)
        os.kill(self._run.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.kill(self._run.pid, signal.SIGSTOP)
            whole = self._steps[first:]  # the step that it was stopped in is left out
            intervals += [b - a for a, b in itertools.pairwise(whole)]

    def stop(self) -> None:
        """End it."""
        self._stopping = True
        self._run.stop()


# ---- the rows


def measure(
    env: dict[str, str], training: Training, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for each: serving alone, training alone, both."""
    serving: dict[tuple[str, int], Timings] = defaultdict(Timings)
    steps: dict[int, list[float]] = defaultdict(list)
    asyncio.run(serve(env, max(CLIENTS), 5, Timings()))  # kernels are compiled, caches filled
    for _ in range(rounds):
        with training.going_on(steps[0]):
            time.sleep(seconds)
        for clients in CLIENTS:
            asyncio.run(serve(env, clients, seconds, serving["alone", clients]))
            with training.going_on(steps[clients]):
                asyncio.run(serve(env, clients, seconds, serving["together", clients]))
    if not steps[0]:
        sys.exit(f"together: no whole step within {seconds:.0f} s; the machine is too busy")
    rows: list[dict[str, Any]] = [
        {"name": "training alone", "steps_per_s": len(steps[0]) / sum(steps[0])}
    ]
    for clients in CLIENTS:
        for how in ("alone", "together"):
            timings = serving[how, clients]
            row: dict[str, Any] = {"name": f"serving {how}, {clients} client{'s' * (clients > 1)}"}
            row |= timings.percentiles() | {"answers": len(timings.first)}
            if how == "together":
                found = steps[clients]
                row["steps_per_s"] = len(found) / sum(found) if found else 0.0
            rows.append(row)
    return rows


def ratios_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return what together costs, against alone, for each number of clients."""
    alone, found = rows[0]["steps_per_s"], {}
    for number, clients in enumerate(CLIENTS):
        idle, busy = rows[1 + 2 * number : 3 + 2 * number]
        for kind in ("first", "between"):
            for cut in ("p50", "p95"):
                key = f"{kind}_{cut}_ms"
                found[f"{kind}_{cut}_at_{clients}"] = busy[key] / idle[key]
        found[f"training_at_{clients}"] = busy["steps_per_s"] / alone
    return found


def show(rows: list[dict[str, Any]], ratios: dict[str, float]) -> None:
    """Print the table."""
    keys = ("first_p50_ms", "first_p95_ms", "between_p50_ms", "between_p95_ms", "steps_per_s")
    print(f"{'':30}{'first token, ms':>18}{'between, ms':>18}{'steps/s':>9}")
    print(f"{'':30}{'p50':>9}{'p95':>9}{'p50':>9}{'p95':>9}")
    for row in rows:
        cells = "".join(f"{row[k]:9.2f}" if k in row else f"{'':9}" for k in keys)
        print(f"{row['name']:30}{cells}")
    for clients in CLIENTS:
        names = ("first_p50", "first_p95", "between_p50", "between_p95", "training")
        cells = "".join(f"{ratios[f'{name}_at_{clients}']:8.2f}x" for name in names)
        print(f"{f'together / alone, {clients}':30}{cells}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, and a short one")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    rounds, seconds = (1, 15.0) if options.quick else (4, 30.0)
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as env:
        training = Training(Settings(data=Path(folder)))
        try:
            training.warm_up()
            with training.going_on([]):
                pass
            rows = measure(env, training, rounds, seconds)
        finally:
            training.stop()
    ratios = ratios_of(rows)
    show(rows, ratios)
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.processor() or platform.machine()}
        value = {"machine": machine, "rows": rows, "ratios": ratios}
        options.json.write_text(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()
