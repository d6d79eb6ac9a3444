"""The worker's child processes: a training run, or the proof's reference."""

from pathlib import Path

from tunery.domain.errors import TuneryError
from tunery.domain.models import BaseModel
from tunery.settings import Settings
from tunery.training.loop import LocalTrainer
from tunery.training.reference import PeftReference
from tunery.wiring.storage import open_blobs, open_directory


def _pinned(settings: Settings, name: str, digest: str) -> BaseModel:
    base = open_directory(settings).catalogue.get(name)
    if base is None or base.digest != digest:
        raise TuneryError(f"The base model {name} is gone or has changed since the job was made.")
    return base


def build_trainer(settings: Settings, base: str, base_digest: str) -> LocalTrainer:
    """Return the trainer for a base, which has to be the one that the job was made with."""
    model = _pinned(settings, base, base_digest)
    return LocalTrainer(
        open_blobs(settings),
        Path(model.path),
        model.learning_rate,
        settings.training.threads,
        settings.training.snapshot_s,
    )


def build_reference(settings: Settings, base: str, base_digest: str) -> PeftReference:
    """Return the proof's reference for a base."""
    model = _pinned(settings, base, base_digest)
    return PeftReference(open_blobs(settings), Path(model.path), settings.training.threads)
