"""The worker's child that trains: it begins without peft, whose import takes half a second."""

from pathlib import Path

from tunery.model.device import choose
from tunery.model.sharing import share_run
from tunery.settings import Settings
from tunery.training.loop import LocalTrainer
from tunery.wiring.storage import (
    native_folder,
    open_blobs,
    open_caches,
    open_directory,
    sharing_folder,
)


def build_trainer(settings: Settings, base: str, base_digest: str) -> LocalTrainer:
    """Return the trainer for a base, which has to be the one that the job was made with."""
    model = open_directory(settings).pinned(base, base_digest)
    return LocalTrainer(
        open_blobs(settings),
        Path(model.path),
        model.learning_rate,
        settings.training.threads,
        settings.training.snapshot_s,
        open_caches(settings),
        native_folder(settings) if settings.training.native == "auto" else None,
        choose(settings.training.device),
    )


def share_cores(settings: Settings) -> None:
    """Have this process keep to half of the cores while answers are made on the same machine.

    Who sets a number of threads has shared out the cores already.
    """
    if not settings.training.threads:
        share_run(sharing_folder(settings))
