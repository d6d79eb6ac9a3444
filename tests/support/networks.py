"""Networks, adapters and engines of the tiny base, and independent references for them."""

import hashlib
import json
import mmap
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from tunery.datasets.text import TextStream
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import TuneryError
from tunery.domain.jobs import Adapter
from tunery.domain.models import EmbeddingModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.engine import Delta
from tunery.engine.adapters import AdapterStack
from tunery.engine.embedding import EmbeddingServer
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import Scheduler
from tunery.engine.seats import Limits
from tunery.engine.server import EngineServer, start_thread
from tunery.model import adapter_file
from tunery.model.adapter_file import AdapterWeights
from tunery.model.base import load_base
from tunery.training.adapter import LearnedAdapter

VOCABULARY = 258  # of the tiny base: 256 bytes and two special tokens
BASE_DIGEST = "b" * 64
SECRET = "engine-secret"
# PEFT asks transformers by a name that transformers has renamed.
PEFT_WARNING = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"


def tokens(count: int, seed: int) -> list[int]:
    """Return random ids of the tiny base's bytes."""
    generator = torch.Generator().manual_seed(seed)
    return [int(t) for t in torch.randint(0, 256, (count,), generator=generator)]


def random_adapter(
    folder: Path, seed: int, rank: int = 4, alpha: float = 6.0, size: float = 0.15
) -> AdapterWeights:
    """Return an adapter that changes every layer much: neither of its matrices is zero."""
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: (
            torch.empty(rank, inputs).normal_(0, size, generator=generator),
            torch.empty(outputs, rank).normal_(0, size, generator=generator),
        )
        for name, (outputs, inputs) in load_base(folder, torch.float32).shapes().items()
    }
    return AdapterWeights(rank, alpha, layers)


# ---- references: transformers and PEFT as they are


def plain_model(folder: Path) -> Any:
    """Return the base as transformers runs it, in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def merged_model(folder: Path, weights: AdapterWeights | None) -> Any:
    """Return the base with alpha / r * B A added to its matrices: LoRA by its definition."""
    model = plain_model(folder)
    with torch.no_grad():
        for name, (down, up) in {} if weights is None else weights.layers.items():
            change = weights.alpha / weights.rank * (up.float() @ down.float()) if weights else 0
            model.get_submodule(name).weight += change
    return model


def peft_model(folder: Path, weights: AdapterWeights) -> Any:
    """Return the base under PEFT, with every A and B of `weights` put in by hand."""
    targets = sorted({name.rpartition(".")[2] for name in weights.layers})
    config = LoraConfig(
        r=weights.rank, lora_alpha=weights.alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    model = get_peft_model(plain_model(folder), config)
    with torch.no_grad():
        for name, (down, up) in weights.layers.items():
            layer = model.get_submodule(f"base_model.model.{name}")
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)
    return model


def assert_gradients_alike(
    learned: LearnedAdapter, model: Any, *, rtol: float, share: float, least: float = 0.0
) -> None:
    """Hold the gradients of every A and B to those of a model of `peft_model`.

    They may be apart by `rtol` of each, or `share` of the matrix's largest; that is over `least`.
    """
    for name, layer in learned.layers.items():
        other = model.get_submodule(f"base_model.model.{name}")
        for mine, matrix in ((layer.down, other.lora_A), (layer.up, other.lora_B)):
            wanted = matrix["default"].weight.grad
            size = float(wanted.abs().max())
            assert size > least
            torch.testing.assert_close(mine.grad, wanted, rtol=rtol, atol=share * size)


def logits_of(model: Any, ids: Sequence[int]) -> Tensor:
    """Return transformers' own logits, [T, V], of one sequence alone."""
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([list(ids)])).logits[0]
    return logits


def answer_of(
    model: Any, prompt: Sequence[int], count: int, seed: int | None = None, temperature: float = 1
) -> list[int]:
    """Return an answer's tokens, each from a whole new forward pass.

    Without a seed they are the likeliest ones; with one, each is where the running sum of the
    probabilities passes the seed's next random number.
    """
    ids, generator = list(prompt), random.Random(seed)
    for _ in range(count):
        logits = logits_of(model, ids)[-1].double()
        if seed is None:
            ids.append(int(logits.argmax()))
        else:
            running = torch.softmax(logits / temperature, -1).cumsum(0)
            ids.append(int((running <= generator.random()).sum()))
    return ids[len(prompt) :]


def log_probabilities(model: Any, ids: Sequence[int]) -> list[float]:
    """Return log p of each token but the first."""
    table = torch.log_softmax(logits_of(model, ids).double(), -1)
    return [float(table[place, token]) for place, token in enumerate(ids[1:])]


# ---- adapters in a store


def store(blobs: BlobStore, key: str, weights: AdapterWeights) -> Adapter:
    """Write an adapter's files and return what names them."""
    data, config = adapter_file.write(weights, "tiny")
    blobs.put(f"{key}/adapter_model.safetensors", data)
    blobs.put(f"{key}/adapter_config.json", config)
    return Adapter(key, hashlib.sha256(data).hexdigest())


# ---- the scheduler, driven step by step


@dataclass
class Answer:
    """One row and what was heard of it."""

    row: Row
    deltas: list[Delta] = field(default_factory=list)
    ends: list[TuneryError | None] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def made(self) -> list[int]:
        return self.row.made


def endless_tokenizer(folder: Path) -> TextTokenizer:
    """Return the tiny tokenizer with no token that ends an answer."""
    tokenizer = TextTokenizer(folder)
    tokenizer.eos_ids = frozenset()
    return tokenizer


def make_scheduler(
    folder: Path,
    tokenizer: TextTokenizer,
    *,
    dtype: torch.dtype = torch.float32,
    rows: int = 4,
    context: int = 512,
    queue: int = 16,
    places: int = 2,
    prefill: int = 64,
    step_s: float = 60.0,
    cache_bytes: int = 2**30,
) -> Scheduler:
    network = load_base(folder, dtype)
    adapters = AdapterStack(network, places, max_rank=8, most_bytes=2**30)
    limits = Limits(rows, context, queue, prefill, step_s, cache_bytes)
    return Scheduler(network, adapters, tokenizer, limits)


def ask(
    scheduler: Scheduler,
    tokenizer: TextTokenizer,
    prompt: Sequence[int],
    count: int,
    *,
    adapter: str | None = None,
    sampling: Sampling | None = None,
    stop: tuple[str, ...] = (),
    tenant: str = "",
) -> Answer:
    """Submit a row and return what will be heard of it."""
    deltas: list[Delta] = []
    ends: list[TuneryError | None] = []
    row = Row(
        prompt_ids=prompt,
        adapter=adapter,
        max_tokens=count,
        sampling=sampling or Sampling(0, 1, None),
        text=TextStream(tokenizer, stop),
        on_delta=deltas.append,
        on_end=ends.append,
        tenant=tenant,
    )
    scheduler.submit(row)
    return Answer(row, deltas, ends)


def drain(scheduler: Scheduler, most_steps: int = 2000) -> None:
    """Step until no row is left."""
    for _ in range(most_steps):
        if not scheduler.active and not scheduler.waiting:
            return
        scheduler.step()
    raise AssertionError(f"rows are left after {most_steps} steps")


# ---- the engine's server, over real loopback HTTP


@dataclass
class Served:
    """An engine that answers, and the way to end it."""

    scheduler: Scheduler
    url: str
    stop: Callable[[], None]


@contextmanager
def serving(
    folder: Path,
    address_file: Path,
    tokenizer: TextTokenizer | None = None,
    *,
    secret: str = SECRET,
    context: int = 512,
    rows: int = 4,
    queue: int = 16,
    places: int = 2,
    find_embedding: Callable[[str], EmbeddingModel | None] = lambda _: None,
) -> Iterator[Served]:
    """Run an engine on a free port and write its address."""
    tokenizer = tokenizer or TextTokenizer(folder)
    scheduler = start_thread(
        lambda: make_scheduler(
            folder, tokenizer, context=context, rows=rows, queue=queue, places=places
        )
    )
    app = EngineServer(
        scheduler,
        tokenizer,
        base_digest=BASE_DIGEST,
        vocabulary=VOCABULARY,
        context_tokens=context,
        secret=SECRET,
    ).app()
    EmbeddingServer(scheduler, find_embedding, queue).mount(app)
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until(lambda: server.started)
        address_file.write_text(json.dumps({"url": url, "secret": secret}))

        def end() -> None:
            server.should_exit = True
            thread.join()
            scheduler.stop()

        try:
            yield Served(scheduler, url, end)
        finally:
            end()


def serve_forever(folder: str, address_file: str) -> None:
    """Be an engine's process whose answers do not end by themselves."""
    path = Path(folder)
    with serving(path, Path(address_file), endless_tokenizer(path), context=50_000):
        threading.Event().wait()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition, looking again and again."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def resident_bytes() -> int:
    """Return the memory that this process takes."""
    with open("/proc/self/statm") as handle:
        return int(handle.read().split()[1]) * mmap.PAGESIZE
