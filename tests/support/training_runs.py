"""Training runs in this process, over a store in a folder: what goes in, and what comes out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson
import torch

from tunery.domain.jobs import Adapter, Hyperparameters, StepMetrics, TrainingMethod
from tunery.domain.ports.training import TrainingReport, TrainingRun
from tunery.model.device import CPU
from tunery.storage.blobs import LocalBlobStore
from tunery.training.cache_folder import CacheFolder
from tunery.training.loop import LocalTrainer

R = TypeVar("R")

NEVER, ALWAYS = 1e9, 1e-9  # seconds between snapshots
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def turns(question: str, answer: str, **others: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, **others},
    ]


TOY = [turns(f"question {n}" + "." * n, "the answer") for n in range(7)]


def put(blobs: LocalBlobStore, key: str, conversations: Sequence[list[dict[str, Any]]]) -> None:
    blobs.put(key, b"".join(orjson.dumps({"messages": m}) + b"\n" for m in conversations))


def put_pairs(blobs: LocalBlobStore, key: str, count: int) -> None:
    """Write pairs, as long as the lines of TOY, of which the answer that agrees is preferred."""
    lines = [
        {
            "input": {"messages": turns[:1]},
            "preferred_output": [{"role": "assistant", "content": "yes, of course"}],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        }
        for turns in TOY[:count]
    ]
    blobs.put(key, b"".join(orjson.dumps(line) + b"\n" for line in lines))


def train(
    blobs: LocalBlobStore,
    base: Path,
    prefix: str,
    *,
    epochs: int = 2,
    batch_size: int = 2,
    rate: float = 5e-3,
    snapshot_s: float = NEVER,
    seed: int = 3,
    pause_at: int | None = None,
    beta: float | None = None,
    native: Path | None = None,
    device: torch.device = CPU,
    **others: Any,
) -> list[TrainingReport]:
    """Train on the blob "train" with every number given, and return the reports.

    With `pause_at`, a pause is wanted once so many steps were reported. With `beta`, the file is of
    preferences. `native` is where native operations are kept, if they are to be used.
    """
    reports: list[TrainingReport] = []
    run = TrainingRun(
        job_id="job",
        base="tiny",
        base_digest="b" * 64,
        training_key="train",
        hyperparameters=Hyperparameters(epochs, batch_size, 2.0, beta),
        seed=seed,
        output_prefix=prefix,
        method=TrainingMethod.SUPERVISED if beta is None else TrainingMethod.DPO,
        **{"validation_key": None, **others},
    )

    def pause_wanted() -> bool:
        return pause_at is not None and len(of(reports, StepMetrics)) >= pause_at

    caches = CacheFolder(blobs._root / "tokens", 2**30)
    trainer = LocalTrainer(blobs, base, rate / 2, 1, snapshot_s, caches, native, device)
    trainer.train(run, reports.append, pause_wanted)
    return reports


def files(blobs: LocalBlobStore, adapter: Adapter) -> tuple[bytes, bytes]:
    return blobs.read(f"{adapter.key}/{WEIGHTS}"), blobs.read(f"{adapter.key}/{CONFIG}")


def of(reports: Sequence[TrainingReport], kind: type[R]) -> list[R]:
    return [report for report in reports if isinstance(report, kind)]
