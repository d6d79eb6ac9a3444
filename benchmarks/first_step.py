"""From the creation of a job to its first step, as its owner sees it.

A whole `tunery up` on the default base, idle but for the job: the demo's 320 examples and 40 more
to validate on. One job that is not counted warms up what a machine keeps (compiled modules, files
in memory); each one is cancelled after its first step. Seconds are the client's, which asks for the
job's events 20 times a second; beside them stands the processor time that all processes of the
service took by then, the only thing that says something on a machine that others use.

    .venv/bin/python benchmarks/first_step.py [--jobs 3] [--json PATH]

The goal: the first step within 10 s.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from together import service

from tunery.settings import DEFAULT_BASE

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from support_messages import Split, chat_line, make

TRAINING, VALIDATION = 320, 40
LONGEST_S, LOOK_S = 300.0, 0.05
# What the job's events begin with, and what was done until each came.
MARKS = {
    "files checked": "Files validated",
    "run claimed": "Fine-tuning job started",
    "model and tokens loaded": "Training with",
    "first step taken": "Step 1/",
}
Json = dict[str, Any]
TICKS = os.sysconf("SC_CLK_TCK")


def processor_s() -> float:
    """Return the processor time of all processes that this one has started, and theirs."""
    parents: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
                used[int(entry.name)] = sum(map(int, fields[11:15]))  # with children that ended
    found, waiting = 0, list(parents.get(os.getpid(), ()))
    while waiting:
        found += used[waiting[-1]]
        waiting += parents.get(waiting.pop(), ())
    return found / TICKS


class Client:
    """Asks a running service."""

    def __init__(self, env: dict[str, str]) -> None:
        headers = {"authorization": f"Bearer {env['OPENAI_API_KEY']}"}
        self._http = httpx2.Client(
            base_url=env["OPENAI_BASE_URL"], headers=headers, timeout=60, trust_env=False
        )

    def ask(self, method: str, path: str, **content: Any) -> Json:
        """Return the answer; end this program where it is an error."""
        answer = self._http.request(method, path, **content)
        if answer.status_code != 200:
            sys.exit(f"first_step: {method} {path}: {answer.text[:300]}")
        return dict(answer.json())

    def upload(self, seed: int, split: Split, count: int) -> str:
        """Upload examples and wait until they are checked; return the file's id."""
        text = "\n".join(json.dumps(chat_line(one)) for one in make(split, count, seed))
        file = self.ask(
            "POST",
            "/files",
            files={"file": (f"{split}.jsonl", text.encode())},
            data={"purpose": "fine-tune"},
        )
        while file["status"] == "uploaded":
            time.sleep(LOOK_S)
            file = self.ask("GET", f"/files/{file['id']}")
        return str(file["id"])

    def first_step(self, seed: int) -> dict[str, tuple[float, float]]:
        """Create a job, and cancel it after its first step.

        Return the seconds, and the processor time, after which each mark was seen.
        """
        body = {
            "model": DEFAULT_BASE,
            "training_file": self.upload(seed, "train", TRAINING),
            "validation_file": self.upload(seed, "validation", VALIDATION),
            "seed": seed,
        }
        started, used = time.perf_counter(), processor_s()
        job = self.ask("POST", "/fine_tuning/jobs", json=body)
        seen: dict[str, tuple[float, float]] = {}
        while len(seen) < len(MARKS):
            time.sleep(LOOK_S)
            passed = time.perf_counter() - started
            events = self.ask("GET", f"/fine_tuning/jobs/{job['id']}/events?limit=100")["data"]
            for name, begin in MARKS.items():
                if any(event["message"].startswith(begin) for event in events):
                    seen.setdefault(name, (passed, processor_s() - used))
            if passed > LONGEST_S or any(event["level"] == "error" for event in events):
                sys.exit(f"first_step: no step; the newest event: {events[0]['message']}")
        self.ask("POST", f"/fine_tuning/jobs/{job['id']}/cancel")
        return seen


def show(rows: Sequence[Json]) -> None:
    """Print the table: seconds since the job's creation."""
    print(f"{'seconds from creation':30}{'median':>9}{'longest':>9}{'processor':>11}")
    for row in rows:
        cells = f"{row['median_s']:9.2f}{row['longest_s']:9.2f}{row['processor_s']:11.2f}"
        print(f"{row['name']:30}{cells}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=3, help="that are counted")
    parser.add_argument("--quick", action="store_true", help="one job")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    jobs = 1 if options.quick else options.jobs
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as env:
        client = Client(env)
        found = [client.first_step(seed) for seed in range(jobs + 1)][1:]
    rows = [
        {
            "name": name,
            "median_s": statistics.median(one[name][0] for one in found),
            "longest_s": max(one[name][0] for one in found),
            "processor_s": statistics.median(one[name][1] for one in found),
        }
        for name in MARKS
    ]
    show(rows)
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.processor() or platform.machine()}
        value = {"machine": machine, "rows": rows, "ratios": {}}
        options.json.write_text(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()
