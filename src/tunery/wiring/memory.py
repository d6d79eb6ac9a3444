"""How much memory engines may take, and how much one takes: known before it is started."""

import os
from contextlib import suppress
from pathlib import Path

from tunery.domain.models import BaseModel
from tunery.settings import EngineSettings

_PROCESS_BYTES = 600 * 1024**2  # Python, torch, and what a step computes with


def bound_bytes(settings: EngineSettings) -> int:
    """Return what all engines together may take."""
    return settings.max_bytes or _machine_bytes() // 2


def engine_bytes(base: BaseModel, settings: EngineSettings) -> int:
    """Return what an engine of `base` takes at most: weights, texts' keys and values, adapters.

    Weights count twice: as float32 where the processor has no bfloat16, and else again in the forms
    that native operations read.
    """
    weights = sum(path.stat().st_size for path in Path(base.path).glob("model*.safetensors"))
    return _PROCESS_BYTES + 2 * weights + settings.cache_bytes + settings.adapter_bytes


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
