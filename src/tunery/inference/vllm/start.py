"""How a vLLM server is started for a base: its arguments and its environment. Starts nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from tunery.domain.models import BaseModel

_RANKS = (8, 16, 32, 64, 128, 256)  # those that vLLM takes, up to the highest of ours
_AT_ONCE = 8  # adapters in one batch: each takes room on the GPU from the start


def arguments(
    base: BaseModel,
    *,
    model: str,
    host: str,
    port: int,
    context_tokens: int,
    adapters: int,
    max_rank: int,
    more: Sequence[str],
) -> list[str]:
    """Return what follows `vllm`; `model` is the name that it is to serve the base by.

    `more` comes last, and what vLLM finds twice it takes from there.
    """
    options = {
        "--host": host,
        "--port": str(port),
        "--served-model-name": model,
        "--max-model-len": str(context_tokens),
        "--generation-config": "vllm",  # what a request does not say changes no sampling
        "--structured-outputs-config": json.dumps({"backend": "guidance"}),
        "--max-loras": str(min(_AT_ONCE, adapters)),
        "--max-cpu-loras": str(adapters),
        "--max-lora-rank": str(next(rank for rank in _RANKS if rank >= max_rank)),
    }
    return [
        "serve",
        base.path,
        *(part for option in options.items() for part in option),
        "--enable-lora",
        # The output layer is left out: with adapters on that, vLLM's log-probabilities of a prompt
        # are wrong, and its CPU build dies of being asked for them.
        "--lora-target-modules",
        *linear_names(Path(base.path)),
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
        *more,
    ]


def environment(inherited: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the server's environment; it asks for `key`, which stands in no argument list."""
    told = {
        **inherited,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_API_KEY": key,
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    told.pop("VLLM_SERVER_DEV_MODE", None)  # it opens routes that ask for no key
    return told


def linear_names(folder: Path) -> list[str]:
    """Return the last names of a base's linear layers within its blocks, as PEFT targets them.

    Read from the heads of its safetensors files: a matrix below a numbered block.
    """
    found = set()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            head = orjson.loads(handle.read(size))
        for name, tensor in head.items():
            parts = name.split(".")
            within = any(part.isdigit() for part in parts)
            if parts[-1] == "weight" and within and len(tensor["shape"]) == 2:
                found.add(parts[-2])
    return sorted(found)
