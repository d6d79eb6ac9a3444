"""Where a model computes, and how much memory is free there.

A GPU is used as torch names it, "cuda", which AMD's are called as well. The embedded engine knows
none of this: it computes on the processor, and machines with a GPU answer through vLLM.
"""

from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch

from tunery.domain.errors import Unavailable

Wanted = Literal["auto", "cpu", "cuda"]
CPU = torch.device("cpu")
_CGROUP = Path("/sys/fs/cgroup")


def choose(wanted: Wanted) -> torch.device:
    """Return the device: with `auto` a GPU where torch can use one, else the processor.

    Raises Unavailable where a GPU is wanted and there is none for torch.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise Unavailable(
            "TUNERY_TRAINING__DEVICE is cuda, and torch finds no GPU; install a build of torch for"
            " it, or set auto.",
            code="no_gpu",
        )
    return torch.device("cuda") if found and wanted != "cpu" else CPU


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that can still be taken, or None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept  # what torch has set aside and nothing holds is free as well
    found: int | None = None
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found = 1024 * int(line.split()[1])
    with suppress(OSError, ValueError):  # "max", or no such file: no container
        bound = int((_CGROUP / "memory.max").read_text())
        room = bound - int((_CGROUP / "memory.current").read_text())
        found = room if found is None else min(found, room)
    return found
