"""The servers of the serving benchmark: this service with its adapters, llama.cpp's, any other.

Each is a process of its own that is stopped at the end, and known as a Target to ask.
"""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import serving_peer
import torch
from gateway import answers_at
from safetensors import safe_open
from serving_load import Prompt, Target, request, send

from tunery.cli import supervised
from tunery.domain.jobs import Adapter
from tunery.domain.models import BaseModel, TunedModel
from tunery.domain.tenants import Tenant
from tunery.model import adapter_file
from tunery.model.adapter_file import AdapterWeights
from tunery.services.accounts import create_first_account
from tunery.settings import Settings
from tunery.storage.database import Database
from tunery.wiring.storage import (
    engine_places,
    load_pepper,
    open_blobs,
    open_database,
    open_directory,
    renderer_of,
)

SLOTS, CONTEXT = 32, 1024  # of every server
MIXED, COLD, RANK = 8, 4, 16
API, ENGINE = "tunery, whole API", "tunery, engine alone"
API_TORCH, ENGINE_TORCH = f"{API}, pure torch", f"{ENGINE}, pure torch"


# ---- adapters


def make_adapters(base: BaseModel) -> list[AdapterWeights]:
    """Return adapters of rank 16 over all linear layers, of small random numbers."""
    with safe_open(Path(base.path) / "model.safetensors", "pt") as file:
        shapes = {
            name.removesuffix(".weight"): file.get_slice(name).get_shape()
            for name in file.keys()  # noqa: SIM118 - the file is no mapping
            if name.endswith("_proj.weight")
        }
    generator, made = torch.Generator().manual_seed(4), []

    def numbers(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.02).bfloat16()

    for _ in range(MIXED + COLD):
        layers = {name: (numbers(RANK, k), numbers(n, RANK)) for name, (n, k) in shapes.items()}
        made.append(AdapterWeights(RANK, 2.0 * RANK, layers))
    return made


def to_gguf(adapters: Sequence[AdapterWeights], base: BaseModel, folder: Path) -> list[Path]:
    """Write the mixed adapters as llama.cpp reads them."""
    config = json.loads((Path(base.path) / "config.json").read_text())
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    paths = []
    for number, weights in enumerate(adapters[:MIXED]):
        paths.append(folder / f"adapter-{number}.gguf")
        layers = {n: (a.float().numpy(), b.float().numpy()) for n, (a, b) in weights.layers.items()}
        serving_peer.write_lora(paths[-1], layers, weights.alpha, heads)
    return paths


# ---- this service


@dataclass(frozen=True, slots=True)
class Own:
    """A running service of ours."""

    settings: Settings
    database: Database
    tenant: Tenant
    base: BaseModel
    adapters: list[tuple[Adapter, bytes, bytes]]  # with their two files
    api: Target
    engine: Target
    engine_pid: int
    native: bool

    def model(self, number: int, name: str) -> TunedModel:
        return TunedModel(
            name, f"ftjob-{name}", self.base.name, self.base.digest, self.adapters[number][0], 1
        )

    async def load(self, number: int, name: str | None = None) -> float:
        """Send an adapter to the engine, under its own name or another; return the seconds."""
        adapter, weights, config = self.adapters[number]
        path = f"/adapters?name={quote(name or engine_name(adapter), safe='')}"
        head = {"x-adapter-config": json.dumps(json.loads(config))}
        started = time.perf_counter()
        await send(
            self.engine.url,
            request(self.engine.url, "PUT", path, self.engine.key, weights, head),
        )
        return time.perf_counter() - started

    async def evict(self, number: int) -> None:
        """Have the engine let go of an adapter, once nobody uses it."""
        path = f"/adapters?name={quote(engine_name(self.adapters[number][0]), safe='')}"
        content = request(self.engine.url, "DELETE", path, self.engine.key, b"", {})
        while True:
            if b'"unloaded":true' in (await send(self.engine.url, content)).raw:
                return
            await asyncio.sleep(0.01)


def engine_name(adapter: Adapter) -> str:
    return f"{adapter.key}@{adapter.digest}"


@contextmanager
def own(
    folder: Path, adapters: Sequence[AdapterWeights], native: str, /, **engine: int
) -> Iterator[Own]:
    """Start API and engine as processes on a new data folder; stop them at the end."""
    env = {**os.environ, "TUNERY_DATA": str(folder), "TUNERY_ENGINE__NATIVE": native}
    env[supervised.VARIABLE] = "1"
    wanted = {"rows": SLOTS, "context_tokens": CONTEXT, **engine}
    env |= {f"TUNERY_ENGINE__{name.upper()}": str(value) for name, value in wanted.items()}
    settings, port = Settings(data=folder), serving_peer.free_port()
    tunery = [sys.executable, "-m", "tunery"]
    subprocess.run([*tunery, "migrate"], env=env, check=True, capture_output=True)
    database = open_database(settings)
    first = create_first_account(database, load_pepper(settings), "Bench")
    assert first is not None
    base, blobs, stored = open_directory(settings).base(), open_blobs(settings), []
    for number, weights in enumerate(adapters):
        files = adapter_file.write(weights, base.name)
        key = f"{first.tenant.project_id}/adapters/{number}"
        blobs.put(f"{key}/{adapter_file.WEIGHTS}", files[0])
        blobs.put(f"{key}/{adapter_file.CONFIG}", files[1])
        stored.append((Adapter(key, hashlib.sha256(files[0]).hexdigest()), *files))
    log = folder / "engine.log"
    with ExitStack() as stack:
        stack.callback(database.close)
        with log.open("wb") as stderr:
            engine_process = stopped(stack, [*tunery, "engine"], env, stderr)
        api_process = stopped(stack, [*tunery, "serve", "--port", str(port)], env, None)
        place = engine_places(settings).address(base.digest)
        wait_for(place.exists, engine_process, "the engine")
        wait_for(lambda: answers_at(port), api_process, "the API")
        if native != "off":
            wait_for(lambda: b"native operations" in log.read_bytes(), engine_process, "a build")
        address = json.loads(place.read_text())
        compiled = b"native operations are used" in log.read_bytes()
        biases = dict.fromkeys(sorted(renderer_of(base).tokenizer.eos_ids), -100)
        models = [f"ft:{base.name}:bench::{number:08}" for number in range(len(stored))]

        def ask_api(prompt: Prompt, adapter: int | None, tokens: int) -> dict[str, Any]:
            return {
                "model": base.name if adapter is None else models[adapter],
                "messages": prompt.messages,
                "max_tokens": tokens,
                "temperature": 0,
                "logit_bias": biases,
                "stream": True,
                "stream_options": {"include_usage": True},
            }

        def ask_engine(prompt: Prompt, adapter: int | None, tokens: int) -> dict[str, Any]:
            return {
                "prompt_ids": prompt.ids,
                "base_digest": base.digest,
                "adapter": None if adapter is None else engine_name(stored[adapter][0]),
                "max_tokens": tokens,
                "temperature": 0.0,
                "top_p": 1.0,
                "stop": [],
                "seed": None,
                "logit_bias": list(biases.items()),
                "tenant": first.tenant.project_id,
            }

        key, url = first.project_key.secret, f"http://127.0.0.1:{port}"
        path = "/v1/chat/completions"
        api = Target(API if compiled else API_TORCH, url, path, key, ask_api, MIXED)
        name = ENGINE if compiled else ENGINE_TORCH
        alone = Target(name, address["url"], "/generate", address["secret"], ask_engine, MIXED)
        pid = engine_process.pid
        made = Own(settings, database, first.tenant, base, stored, api, alone, pid, compiled)
        with database.write() as tx:
            for number, model in enumerate(models):
                tx.models(first.tenant).add(made.model(number, model))
        yield made


def stopped(
    stack: ExitStack, command: list[str], env: dict[str, str], stderr: Any
) -> subprocess.Popen[bytes]:
    """Start a process that is stopped at the end, and ends by itself if this one is killed."""
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stderr=stderr or subprocess.DEVNULL
    )
    stack.callback(process.wait)
    stack.callback(process.send_signal, signal.SIGTERM)
    return process


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"serving: {what} ended or did not come up within 240 s")
        time.sleep(0.1)


# ---- the others


def get(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=5) as answer:  # noqa: S310 - named by the user
        content: bytes = answer.read()
    return content


@contextmanager
def llama(name: str, program: Sequence[str], gguf: Path, loras: list[Path]) -> Iterator[Target]:
    """Start llama.cpp's server; stop it at the end."""
    port = serving_peer.free_port()
    process = serving_peer.start(program, gguf, loras, port, SLOTS, CONTEXT)
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        try:
            get(url, "/health")
        except OSError:
            return False
        return True

    def ask(prompt: Prompt, adapter: int | None, tokens: int) -> dict[str, Any]:
        return serving_peer.body(
            prompt.messages, adapter, tokens, adapters=len(loras), reuse=name.endswith("reuse")
        )

    try:
        wait_for(healthy, process, name)
        yield Target(name, url, "/v1/chat/completions", "none", ask, len(loras))
    finally:
        process.kill()  # it holds nothing
        process.wait()


def openai(url: str) -> Target:
    """Return a server that is there already: its first model is the base, the rest are adapters."""
    models = [model["id"] for model in json.loads(get(url, "/v1/models"))["data"]]

    def ask(prompt: Prompt, adapter: int | None, tokens: int) -> dict[str, Any]:
        return {
            "model": models[0 if adapter is None else 1 + adapter],
            "messages": prompt.messages,
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    adapters = min(MIXED, len(models) - 1)
    return Target(url, url, "/v1/chat/completions", "none", ask, adapters)
