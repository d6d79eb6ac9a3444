"""vLLM: its client for every process that answers, and the start of a server of our own."""

import os
import secrets
import shlex
from dataclasses import dataclass

import orjson

from tunery.domain.errors import TuneryError
from tunery.domain.ports.blobs import BlobStore
from tunery.inference.vllm.connection import VllmAddress, VllmConnection
from tunery.inference.vllm.engine import VllmEngine, served_name
from tunery.inference.vllm.folder import AdapterFolder
from tunery.inference.vllm.start import arguments, environment
from tunery.settings import Settings
from tunery.wiring.storage import (
    announce,
    engine_places,
    load_pepper,
    open_directory,
    renderer_of,
)


def build_vllm(settings: Settings, blobs: BlobStore) -> VllmEngine:
    """Return the client of the settings' vLLM server."""
    folder = AdapterFolder(settings.vllm_adapter_path, blobs, settings.vllm.adapters)
    folder.sweep()
    directory = open_directory(settings)
    return VllmEngine(
        VllmConnection(lambda: _address(settings)),
        folder,
        base=directory.base,
        tokenizer=lambda base: renderer_of(base).tokenizer,
        model=settings.vllm.model,
        salt_key=load_pepper(settings),
        most_requests=settings.vllm.requests,
    )


def _address(settings: Settings) -> VllmAddress:
    """Return where the server is: at its URL, or where the one that we started has said."""
    if settings.vllm.url is not None:
        key = settings.vllm.api_key
        url = settings.vllm.url.rstrip("/").removesuffix("/v1")
        return VllmAddress(url, "" if key is None else key.get_secret_value())
    base = open_directory(settings).base()
    value = orjson.loads(engine_places(settings).address(base.digest).read_bytes())
    return VllmAddress(value["url"], value["secret"])


@dataclass(frozen=True, slots=True)
class VllmStart:
    """A vLLM server to start."""

    command: list[str]
    environment: dict[str, str]


def start_vllm(settings: Settings, host: str, port: int) -> VllmStart:
    """Return how the default base's server is started, and tell the others where it will be."""
    if settings.vllm.url is not None:
        raise TuneryError(
            f"The vLLM at {settings.vllm.url} is not ours to start; unset TUNERY_VLLM__URL to have"
            " one started."
        )
    base = open_directory(settings).base()
    told = arguments(
        base,
        model=settings.vllm.model or served_name(base),
        host=host,
        port=port,
        context_tokens=min(base.context_tokens, settings.engine.context_tokens),
        adapters=settings.vllm.adapters,
        max_rank=settings.engine.max_rank,
        more=shlex.split(settings.vllm.arguments),
    )
    secret = secrets.token_urlsafe(32)
    announce(settings, base.digest, f"http://{host}:{port}", secret)
    return VllmStart([settings.vllm.command, *told], environment(os.environ, secret))
