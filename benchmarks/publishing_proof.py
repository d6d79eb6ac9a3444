"""How far served models are from the fp32 reference, and how far wrong ones would be.

Takes the newest finished job of a data folder (`make demo` leaves one in tunery-data) and scores
its validation lines: the published adapter as the engine serves it, then the mistakes that the
publishing check is there to find, each against transformers + PEFT in fp32 with the right files.

    .venv/bin/python benchmarks/publishing_proof.py [--data tunery-data] [--json PATH]
        [--arithmetic torch|native|eight]
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")

import torch
from engine_forms import FORMS, engine

from tunery.domain.jobs import Adapter, Job, JobStatus
from tunery.domain.ports.training import ProofRequest
from tunery.domain.tenants import Tenant
from tunery.engine.adapters import AdapterStack
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import idle_callback
from tunery.engine.seats import Limits
from tunery.model import adapter_file
from tunery.model.adapter_file import AdapterWeights
from tunery.services.publishing import compare, proof_texts
from tunery.settings import Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.training.reference import PeftReference
from tunery.wiring.storage import open_blobs, open_database, open_directory, renderer_of

Scores = list[list[float]]


def newest_job(database: Database) -> tuple[Tenant, Job]:
    """Return the newest job that succeeded, of the first project."""
    with database.read() as tx:
        tenant = tx.accounts.first_tenant()
        if tenant is not None:
            for job in tx.jobs(tenant).page(metadata={}, after=None, limit=100).items:
                if job.status is JobStatus.SUCCEEDED and job.validation_file is not None:
                    return tenant, job
    sys.exit("publishing_proof: no finished job with a validation file; run `make demo` first.")


def weights_of(blobs: LocalBlobStore, adapter: Adapter, stack: AdapterStack) -> AdapterWeights:
    """Return an adapter's matrices."""
    return adapter_file.read(
        blobs.read(f"{adapter.key}/{adapter_file.WEIGHTS}"),
        blobs.read(f"{adapter.key}/{adapter_file.CONFIG}"),
        stack.shapes,
        stack.max_rank,
    )


def without_layer(weights: AdapterWeights, number: int) -> AdapterWeights:
    """Return the adapter with one block of the network left out."""
    kept = {n: m for n, m in weights.layers.items() if f".layers.{number}." not in n}
    return replace(weights, layers=kept)


def noisy(weights: AdapterWeights) -> AdapterWeights:
    """Return the adapter with a twentieth of noise on every matrix."""
    generator = torch.Generator().manual_seed(0)

    def shaken(matrix: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(matrix.shape, generator=generator) * matrix.float().std() * 0.05
        return (matrix.float() + noise).to(matrix.dtype)

    layers = {n: (shaken(down), shaken(up)) for n, (down, up) in weights.layers.items()}
    return replace(weights, layers=layers)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("tunery-data"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--arithmetic", choices=FORMS, default="eight")
    options = parser.parse_args()
    settings = Settings(data=options.data)
    database, blobs = open_database(settings), open_blobs(settings)
    tenant, job = newest_job(database)
    base = open_directory(settings).base()
    with database.read() as tx:
        checkpoints = tx.jobs(tenant).epoch_checkpoints(job.id)
        file = tx.files(tenant).get(job.validation_file or "")
    if file is None:
        sys.exit("publishing_proof: the job's validation file was deleted.")
    texts = proof_texts(blobs, renderer_of(base), file.blob_key, 200)
    right = checkpoints[-1].adapter
    request = ProofRequest(base.name, base.digest, (right,), texts)
    expected = PeftReference(blobs, Path(base.path), 0).score(request)[0]

    limits = Limits(16, 2048, 999, 512, 1.0, 2**30)
    scheduler = engine(settings, options.arithmetic, 4, limits)
    stack = scheduler.adapters

    def served(weights: AdapterWeights | None) -> Scores:
        if weights is not None:
            stack.unload("x")
            stack.load("x", weights)
        collected: Scores = []
        for ids in texts:
            scores: list[float] = []
            collected.append(scores)
            sampling = Sampling(0, 1, None)
            name = None if weights is None else "x"
            scheduler.submit(
                Row(ids, name, 0, sampling, None, idle_callback, idle_callback, scores=scores)
            )
        while scheduler.active or scheduler.waiting:
            scheduler.step()
        return collected

    true = weights_of(blobs, right, stack)
    cases: list[tuple[str, Callable[[], AdapterWeights | None]]] = [
        ("the published adapter", lambda: true),
        ("wrong: 5% noise on it", lambda: noisy(true)),
        ("wrong: one block of 30 left out", lambda: without_layer(true, 15)),
        ("wrong: half its scale", lambda: replace(true, alpha=true.alpha / 2)),
        ("wrong: the base alone", lambda: None),
    ]
    if len(checkpoints) > 1:
        earlier = weights_of(blobs, checkpoints[-2].adapter, stack)
        cases.insert(3, ("wrong: the epoch before", lambda: earlier))
    rows: list[tuple[str, float, float]] = []
    counted = compare(expected, expected, texts).tokens
    print(f"{'served':34} {'mean':>8} {'max':>8}   over {counted} tokens")
    for name, make in cases:
        proof = compare(served(make()), expected, texts)
        print(f"{name:34} {proof.mean:8.4f} {proof.maximum:8.4f}")
        rows.append((name, proof.mean, proof.maximum))
    if options.json:
        ratio = min(mean for _, mean, _ in rows[1:]) / rows[0][1]
        document = {
            "machine": platform.processor() or platform.machine(),
            "rows": [{"name": n, "mean": mean, "max": high} for n, mean, high in rows],
            "ratios": {"nearest wrong mean / right mean": ratio},
        }
        options.json.write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
