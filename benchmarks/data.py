"""What preparing data costs: megabytes a second on one core, and memory at its peak.

Each row runs in a process of its own, one after the other, on the same seeded file of chats:

- upload check: what the service itself does with an uploaded file
- structure: every check of `tunery data prepare` but near duplicates and tokens
- with near duplicates: the same, and those
- writing: the second reading, which splits the file in two and writes both
- tokens: counting them with the default base, on a part of the file

    .venv/bin/python benchmarks/data.py [--megabytes 1000] [--quick] [--json PATH]
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tunery.datasets.checks import check_file
from tunery.datasets.preparing import near_lines
from tunery.datasets.preparing.shapes import plan_for
from tunery.datasets.preparing.sources import open_source
from tunery.datasets.preparing.survey import Reading, Survey, survey
from tunery.datasets.preparing.token_counts import TokenCounts
from tunery.datasets.preparing.writing import Choices, decide, write
from tunery.settings import Settings
from tunery.wiring.storage import open_directory, renderer_of

QUICK_MB, TOKENS_MB = 100, 8
_SYSTEM = (
    "You are the support assistant of an online shop for camping equipment. Answer politely and"
    " precisely, name the next step first, then the number of the policy that applies."
)


def make(path: Path, megabytes: int) -> None:
    """Write chats of about 1.2 kB; one in fifty is an exact copy, one in fifty nearly one."""
    draw = random.Random("data")
    sounds = ["".join(draw.choices("bdfgklmnprstvz")) + draw.choice("aeiou") for _ in range(90)]
    words = ["".join(draw.choices(sounds, k=draw.choice((1, 2, 2, 3)))) for _ in range(20_000)]
    common = words[:200]
    size = 0
    question = answer = line = ""
    with path.open("wb") as file:
        while size < megabytes * 1_000_000:
            kind = draw.random() if line else 1.0
            if kind > 0.04:
                length = max(12, int(draw.lognormvariate(4.8, 0.5)))
                said = draw.choices(words, k=length // 2) + draw.choices(common, k=length // 2)
                draw.shuffle(said)
                question, answer = " ".join(said[: length // 3]), " ".join(said[length // 3 :])
                if kind < 0.3:
                    answer = answer.replace(" ", ".\n\n", 1)
            elif kind > 0.02:
                question = f"Hello, {question}"
            messages = [
                {"role": "system", "content": _SYSTEM},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            line = json.dumps({"messages": messages}) + "\n"
            size += file.write(line.encode())


def read(path: Path, counts: TokenCounts | None = None) -> Survey:
    """Survey the file."""
    source = open_source(path)
    reading = Reading(path.name, source, plan_for(source, {}))
    return survey(reading, None, counts=counts, seed=0)


def without_near(path: Path) -> float:
    """Return the seconds of a survey without near duplicates."""
    vars(near_lines)["np"] = None
    return timed(lambda: read(path))


def written(path: Path) -> float:
    """Return the seconds of the second reading."""
    vars(near_lines)["np"] = None
    found = read(path)
    decision = decide(found, Choices({"duplicate_lines"}, 0.1))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        paths = {side: Path(folder) / f"{side}.jsonl" for side in ("train", "valid")}
        return timed(lambda: write(found, decision, paths))


def checked(path: Path) -> float:
    """Return the seconds of the upload's check."""

    def run() -> None:
        with path.open("rb") as file:
            check_file(iter(lambda: file.read(1 << 20), b""))

    return timed(run)


def counted(path: Path) -> float:
    """Return the seconds of counting tokens: a survey with it, less one without."""
    base = open_directory(Settings()).base()
    counts = TokenCounts(renderer_of(base), base.name, base.context_tokens)
    return timed(lambda: read(path, counts)) - timed(lambda: read(path))


def timed(run: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call takes: others may use the machine too."""
    start = time.process_time()
    run()
    return time.process_time() - start


ROWS: dict[str, Callable[[Path], float]] = {
    "upload check": checked,
    "structure": without_near,
    "with near duplicates": lambda path: timed(lambda: read(path)),
    "writing": written,
    "tokens": counted,
}


def child(name: str, path: Path) -> None:
    """Run one row and print its figures."""
    seconds = ROWS[name](path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def main() -> None:
    """Run the rows and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    megabytes = QUICK_MB if options.quick else options.megabytes
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder) / "whole.jsonl", Path(folder) / "part.jsonl"
        make(whole, megabytes)
        make(part, min(megabytes, TOKENS_MB))
        for name in ROWS:
            path = part if name == "tokens" else whole
            command = [sys.executable, __file__, "--child", name, str(path)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            figures = json.loads(done.stdout)
            size = path.stat().st_size / 1e6
            speed = size / figures["seconds"]
            peak = figures["peak_mb"]
            rows.append({"name": name, "mb": size, "mb_per_s": speed, "peak_mb": peak})
            print(f"{name:24}{size:8.0f} MB {speed:8.1f} MB/s {peak:6} MB at the peak", flush=True)
    if options.json:
        machine = {"processor": platform.processor(), "cores": os.cpu_count()}
        ratios = {"structure to upload check": rows[1]["mb_per_s"] / rows[0]["mb_per_s"]}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows, "ratios": ratios}))


if __name__ == "__main__":
    main()
