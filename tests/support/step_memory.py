"""How much memory a training step on so many tokens takes, in a process of its own.

Run as `python -m support.step_memory SHAPE METHOD TOKENS MODEL FOLDER`; prints one line of JSON:
the memory that the process has when its first step is about to begin, and the most that it takes
from there to its end, in bytes.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunery.cli.libraries import RUN_SPINS, quiet_libraries

if __name__ == "__main__":
    quiet_libraries(RUN_SPINS)  # before torch is imported, as the worker's child does

import orjson

from tunery.datasets.rendering import ChatRenderer
from tunery.domain.jobs import Hyperparameters, TrainingMethod
from tunery.domain.ports.training import RunFailed, RunStarted, TrainingReport, TrainingRun
from tunery.settings import Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.wiring.storage import native_folder

SHAPES = ("single", "packed")
PACKED_TOKENS = 256  # of each example where several are packed
_WORDS = (" the", " a", " of", " to", " and", " in", " is", " that", " for", " it")  # a token each
_BETA = 0.1


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes of the process before its step, and the most from there on."""

    before: int
    most: int


def measure(shape: str, method: str, tokens: int, model: Path, folder: Path) -> StepMemory:
    """Return what a new process needs for one step on examples of `tokens` tokens in all.

    `single` is one example of them; `packed` are several of PACKED_TOKENS. An example of a
    preference has as many tokens on each of its two sides.
    """
    command = [sys.executable, "-m", "support.step_memory"]
    command += [shape, method, str(tokens), str(model), str(folder)]
    found = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": found}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return StepMemory(**json.loads(done.stdout.splitlines()[-1]))


def _line(
    generator: random.Random, renderer: ChatRenderer, method: TrainingMethod, tokens: int
) -> dict[str, Any]:
    """Return a line that renders to exactly `tokens` tokens, on each side: half is the question."""

    def said(words: int) -> str:
        return "".join(generator.choices(_WORDS, k=words)).lstrip()

    empty = [{"role": "user", "content": "the"}, {"role": "assistant", "content": "the"}]
    room = tokens - len(renderer.example(empty).token_ids) + 2  # the two words are counted in it
    asked = {"role": "user", "content": said(room // 2)}

    def answer() -> dict[str, str]:
        return {"role": "assistant", "content": said(room - room // 2)}

    if method is TrainingMethod.SUPERVISED:
        return {"messages": [asked, answer()]}
    return {
        "input": {"messages": [asked]},
        "preferred_output": [answer()],
        "non_preferred_output": [answer()],
    }


def _memory(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


def _step(shape: str, method: str, tokens: int, model: Path, folder: Path) -> StepMemory:
    from tunery.training.cache_folder import CacheFolder
    from tunery.training.loop import LocalTrainer

    kind, renderer, generator = TrainingMethod(method), ChatRenderer.load(model), random.Random(1)
    each = tokens if shape == "single" else PACKED_TOKENS
    made = [_line(generator, renderer, kind, each) for _ in range(tokens // each)]
    blobs = LocalBlobStore(folder)
    blobs.put("train.jsonl", b"".join(orjson.dumps(line) + b"\n" for line in made))
    before = 0

    def report(value: TrainingReport) -> None:
        nonlocal before
        assert not isinstance(value, RunFailed), value
        if isinstance(value, RunStarted):
            before = _memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the most is counted from here on

    run = TrainingRun(
        job_id="ftjob-1",
        base="base",
        base_digest="d" * 64,
        training_key="train.jsonl",
        validation_key=None,
        hyperparameters=Hyperparameters(1, len(made), 1.0, None if kind == "supervised" else _BETA),
        seed=1,
        output_prefix="jobs/ftjob-1/attempt-1",
        method=kind,
    )
    caches = CacheFolder(folder / "tokens", 2**30)
    native = native_folder(Settings())  # as it is trained where nothing was set
    LocalTrainer(blobs, model, 1e-3, 0, 1e9, caches, native).train(run, report)
    return StepMemory(before, _memory("VmHWM"))


def _main(arguments: Sequence[str]) -> None:
    shape, method, tokens, model, folder = arguments
    found = _step(shape, method, int(tokens), Path(model), Path(folder))
    print(json.dumps({"before": found.before, "most": found.most}))


if __name__ == "__main__":
    _main(sys.argv[1:])
