"""What a training run is made with: written down, so that its bytes can be made again."""

import platform
from importlib.metadata import version

import torch

from tunery import __version__
from tunery.domain.ports.training import MadeWith, TrainingRun


def made_with(
    run: TrainingRun,
    device: torch.device,
    arithmetic: str,
    training_digest: str,
    validation_digest: str | None,
    template_digest: str,
) -> MadeWith:
    """Return what the bytes of a run in this process depend on."""
    return MadeWith(
        tunery=__version__,
        torch=torch.__version__,
        transformers=version("transformers"),
        tokenizers=version("tokenizers"),
        python=platform.python_version(),
        processor=_processor(device),
        arithmetic=arithmetic,
        threads=torch.get_num_threads(),
        base_digest=run.base_digest,
        start_from_digest=None if run.start_from is None else run.start_from.digest,
        training_digest=training_digest,
        validation_digest=validation_digest,
        template_digest=template_digest,
    )


def _processor(device: torch.device) -> str:
    """Return the kind of what computes."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.version.cuda or torch.version.hip}"
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
