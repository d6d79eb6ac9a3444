"""What a run computes in: decided before its first step, and kept whenever it is taken up again.

Native operations are compiled where that can be done, which takes two seconds once a machine; so
the choice depends on the machine and its settings, and on nothing that may differ between two runs
of one job.
"""

from pathlib import Path

from tunery.domain.errors import disk_errors_told
from tunery.model import native
from tunery.model.base import BaseNetwork
from tunery.model.fused import fusable
from tunery.model.native_operations import NativeOperations, fits
from tunery.model.operations import TORCH, Operations
from tunery.telemetry import logger


def operations_for(
    network: BaseNetwork, native_folder: Path | None, before: str | None
) -> Operations:
    """Return the operations of a run.

    `native_folder` keeps what is compiled; None wants nothing compiled. `before` is what the run
    computed in until now, None for one that begins. Raises StorageFull or Unavailable where the
    folder's disk fails.
    """
    config = network.decoder.inner.config
    if native_folder is None or network.device.type != "cpu":
        return TORCH
    if not fusable(config) or not fits(config, network.dtype):
        return TORCH
    if before is not None and not before.startswith(NativeOperations.name):
        return TORCH
    try:
        with disk_errors_told(native_folder):  # those pass, and would change what a run begins in
            path = native.built(native_folder, native.TRAINING)
            return NativeOperations(path or native.build(native_folder, native.TRAINING))
    except (native.NotBuilt, OSError) as error:
        logger().info("native operations are not used in training", reason=str(error))
        return TORCH


def told(network: BaseNetwork, operations: Operations) -> str:
    """Return what a run computes in, such as `native-bfloat16`."""
    return f"{operations.name}-{network.dtype}".replace("torch.", "")
