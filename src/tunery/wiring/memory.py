"""How much memory engines may take, and how much one takes: known before it is started."""

import os
from contextlib import suppress
from pathlib import Path

import orjson

from tunery.domain.models import BaseModel
from tunery.settings import EngineSettings

_PROCESS_BYTES = 600 * 1024**2  # Python, torch, and what a step computes with
_VALUE_BYTES = 2  # bfloat16


def bound_bytes(settings: EngineSettings) -> int:
    """Return what all engines together may take."""
    return settings.max_bytes or _machine_bytes() // 2


def engine_bytes(base: BaseModel, settings: EngineSettings) -> int:
    """Return what an engine of `base` takes at most: weights, keys and values, adapters."""
    folder = Path(base.path)
    weights = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
    config = orjson.loads((folder / "config.json").read_bytes())
    hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    layers, heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    query, pair = heads * head, int(config.get("num_key_value_heads") or heads) * head
    context = min(base.context_tokens, settings.context_tokens)
    cache = settings.rows * context * layers * 2 * pair
    # Rows of A and columns of B: q, o, k and v, gate, up and down.
    sides = 2 * (hidden + query) + 2 * (hidden + pair) + 3 * (hidden + inner)
    adapters = settings.adapters * settings.max_rank * layers * sides
    return _PROCESS_BYTES + weights + (cache + adapters) * _VALUE_BYTES


def process_bytes(pid: int) -> int | None:
    """Return what a process holds in memory, or None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def _machine_bytes() -> int:
    """Return the machine's memory, or the container's share of it."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # "max", or no such file
        whole = min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return whole
