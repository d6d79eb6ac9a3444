"""The engine's process: network, adapters and scheduler on one thread, HTTP on another."""

import secrets
from pathlib import Path

import orjson
import torch
from fastapi import FastAPI

from tunery.domain.errors import Unavailable
from tunery.engine.adapters import AdapterStack
from tunery.engine.embedding import EmbeddingServer
from tunery.engine.scheduler import Limits, Scheduler
from tunery.engine.server import EngineServer, start_thread
from tunery.model.base import compute_dtype, load_base
from tunery.settings import Settings
from tunery.wiring.storage import engine_places, open_directory, renderer_of, write_private


def build_engine(settings: Settings) -> tuple[FastAPI, Scheduler, str, str]:
    """Return an engine's server, its running scheduler, its base's digest, and its secret."""
    base = open_directory(settings).base()
    tokenizer = renderer_of(base).tokenizer
    wanted = settings.engine
    context = min(base.context_tokens, wanted.context_tokens)
    vocabulary: list[int] = []

    def build() -> Scheduler:
        if wanted.threads:
            torch.set_num_threads(wanted.threads)
        try:
            network = load_base(Path(base.path), compute_dtype())
        except OSError as error:
            raise Unavailable(
                f"The base model cannot be loaded from {base.path}: {error}"
            ) from None
        vocabulary.append(network.head.weight.shape[0])
        adapters = AdapterStack(network, wanted.adapters, wanted.max_rank)
        limits = Limits(
            rows=wanted.rows,
            context_tokens=context,
            queue=wanted.queue,
            prefill_tokens=wanted.prefill_tokens,
            prefill_tokens_busy=wanted.prefill_tokens_busy,
        )
        scheduler = Scheduler(network, adapters, tokenizer, limits)
        scheduler.warm_up()
        return scheduler

    scheduler = start_thread(build)
    secret = secrets.token_urlsafe(32)
    server = EngineServer(
        scheduler,
        tokenizer,
        base_digest=base.digest,
        vocabulary=vocabulary[0],
        context_tokens=context,
        secret=secret,
    )
    app = server.app()
    catalogue = open_directory(settings).catalogue
    EmbeddingServer(scheduler, catalogue.embedding_of, wanted.queue).mount(app)
    return app, scheduler, base.digest, secret


def announce(settings: Settings, base_digest: str, url: str, secret: str) -> None:
    """Tell the other processes where the engine is, in a file that only this user can read."""
    address = engine_places(settings).address(base_digest)
    address.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(address, orjson.dumps({"url": url, "secret": secret}).decode())
