"""The engine's process: network, adapters and scheduler on one thread, HTTP on another."""

import secrets
from pathlib import Path

import torch
from fastapi import FastAPI

from tunery.domain.errors import Unavailable
from tunery.engine.adapters import AdapterStack
from tunery.engine.embedding import EmbeddingServer
from tunery.engine.native import adopt
from tunery.engine.scheduler import Scheduler, idle_callback
from tunery.engine.seats import Limits
from tunery.engine.server import EngineServer, start_thread
from tunery.model.base import Unmapped, compute_dtype, load_base
from tunery.model.sharing import EngineShare
from tunery.settings import Settings
from tunery.wiring.storage import (
    announce_arithmetic,
    native_folder,
    open_directory,
    renderer_of,
    sharing_folder,
)

_SHARE_OF_PROOF = 0.6  # that eight bits may take of the publishing check's mean


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
        except (OSError, Unmapped) as error:
            raise Unavailable(
                f"The base model cannot be loaded from {base.path}: {error}"
            ) from None
        vocabulary.append(network.head.weight.shape[0])
        adapters = AdapterStack(network, wanted.adapters, wanted.max_rank, wanted.adapter_bytes)
        limits = Limits(
            rows=wanted.rows,
            context_tokens=context,
            queue=wanted.queue,
            prefill_tokens=wanted.prefill_tokens,
            step_s=wanted.step_ms / 1000,
            cache_bytes=wanted.cache_bytes,
        )
        # Who sets a number of threads has shared out the cores already.
        share = idle_callback if wanted.threads else EngineShare(sharing_folder(settings))
        scheduler = Scheduler(network, adapters, tokenizer, limits, share)

        def tell(arithmetic: str) -> None:
            announce_arithmetic(settings, base.digest, arithmetic)

        tell(f"torch-{network.dtype}".replace("torch.", ""))
        if wanted.native == "auto":
            adopt(
                scheduler,
                network,
                native_folder(settings),
                eight_bits=wanted.eight_bit,
                most_apart=_SHARE_OF_PROOF * settings.training.proof_mean,
                tell=tell,
            )
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
