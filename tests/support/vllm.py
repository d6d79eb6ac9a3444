"""A vLLM client under test, over a replayed server, or a real one whose answers are recorded.

`TUNERY_TEST_VLLM=URL` names a real server, as `scripts/test-vllm` starts it for the tiny model.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import torch

from support.networks import BASE_DIGEST, endless_tokenizer
from support.replay import KEY, recorded, replayed
from tunery.domain.models import BaseModel, Prices
from tunery.domain.ports.blobs import BlobStore
from tunery.inference.vllm.connection import VllmAddress, VllmConnection
from tunery.inference.vllm.engine import VllmEngine
from tunery.inference.vllm.folder import AdapterFolder
from tunery.model.adapter_file import AdapterWeights
from tunery.model.base import load_base

VARIABLE = "TUNERY_TEST_VLLM"
RECORDINGS = Path(
    os.environ.get("TUNERY_TEST_VLLM_RECORDINGS")
    or Path(__file__).parents[1] / "unit" / "inference" / "vllm" / "recordings"
)
HEAD_DIM = 32  # the least that vLLM's CPU build computes
MODEL = f"tiny@{BASE_DIGEST[:16]}"  # what the server has to serve the tiny model by


def tiny_base(folder: Path) -> BaseModel:
    zero = Decimal(0)
    return BaseModel(
        name="tiny",
        aliases=(),
        path=str(folder),
        digest=BASE_DIGEST,
        context_tokens=512,
        learning_rate=1e-3,
        prices=Prices(zero, zero, zero, zero, zero),
        created_at=0,
    )


def uniform_adapter(folder: Path, seed: int, rank: int = 4, size: float = 0.25) -> AdapterWeights:
    """Return an adapter of the same bytes on every machine: its digest stands in recordings."""
    number = random.Random(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        values = [number.uniform(-size, size) for _ in range(rows * columns)]
        return torch.tensor(values).reshape(rows, columns)

    shapes = load_base(folder, torch.float32).shapes()
    layers = {name: (matrix(rank, ins), matrix(outs, rank)) for name, (outs, ins) in shapes.items()}
    return AdapterWeights(rank, 6.0, layers)


def vllm_engine(
    url: str,
    model_folder: Path,
    adapters: Path,
    blobs: BlobStore,
    *,
    key: str = KEY,
    most: int = 4,
    requests: int = 64,
) -> VllmEngine:
    tokenizer, base = endless_tokenizer(model_folder), tiny_base(model_folder)
    return VllmEngine(
        VllmConnection(lambda: VllmAddress(url, key)),
        AdapterFolder(adapters, blobs, most),
        base=lambda: base,
        tokenizer=lambda _: tokenizer,
        model=None,
        salt_key=b"test",
        most_requests=requests,
    )


@contextmanager
def vllm_wire(name: str, adapters: Path) -> Iterator[str]:
    """Give the URL of a server that answers as recorded under `name`, or is recorded there."""
    recording, real = RECORDINGS / f"{name}.jsonl", os.environ.get(VARIABLE)
    with recorded(recording, adapters, real) if real else replayed(recording, adapters) as wire:
        yield wire.url
