"""The sweep that "auto" is held against, and when it holds up."""

from collections.abc import Sequence
from dataclasses import replace

from quality_statistics import Estimate

from tunery.domain.jobs import Hyperparameters

AXES = ("rate", "epochs", "batch")
BEHIND = 0.02  # what auto may be behind the sweep's best


def neighbours(auto: Hyperparameters, axes: Sequence[str]) -> dict[str, Hyperparameters]:
    """Return the sweep: what is one step away from auto on these axes, in the ranges of a job."""
    rate, epochs, batch = auto.learning_rate_multiplier, auto.n_epochs, auto.batch_size
    found = {
        "rate / 2": replace(auto, learning_rate_multiplier=rate / 2),
        "rate x 2": replace(auto, learning_rate_multiplier=rate * 2),
        "epochs / 2": replace(auto, n_epochs=max(1, epochs // 2)),
        "epochs x 2": replace(auto, n_epochs=min(50, epochs * 2)),
        "batch / 2": replace(auto, batch_size=max(1, batch // 2)),
        "batch x 2": replace(auto, batch_size=min(256, batch * 2)),
    }
    return {
        name: numbers
        for name, numbers in found.items()
        if numbers != auto and name.split()[0] in axes
    }


def holds_up(apart: Estimate) -> bool:
    """Return whether auto, less the best of the sweep, is within BEHIND or not told from it."""
    return apart.value >= -BEHIND or apart.high >= 0
