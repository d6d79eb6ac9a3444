"""The worker's child that scores for the publishing check: peft comes in here, and here alone."""

from pathlib import Path

from tunery.model.device import choose
from tunery.settings import Settings
from tunery.training.reference import PeftReference
from tunery.wiring.storage import open_blobs, open_directory


def build_reference(settings: Settings, base: str, base_digest: str) -> PeftReference:
    """Return the proof's reference for a base."""
    model = open_directory(settings).pinned(base, base_digest)
    return PeftReference(
        open_blobs(settings),
        Path(model.path),
        settings.training.threads,
        choose(settings.training.device),
    )
