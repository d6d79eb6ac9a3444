"""What "auto" becomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.domain.hyperparameters import resolve
from tunery.domain.jobs import Hyperparameters, RequestedHyperparameters, TrainingMethod


@pytest.mark.parametrize(
    ("examples", "batch_size", "n_epochs"),
    [
        (1, 1, 25),  # 80 epochs would be wanted: the bound is 25
        (10, 8, 25),  # 64 wanted
        (50, 8, 13),  # 80 * 8 / 50 = 12.8
        (100, 8, 6),  # 6.4
        (640, 8, 1),  # one epoch has 80 steps
        (1_000_000, 8, 1),
    ],
)
def test_auto_gives_batches_of_eight_and_about_80_steps(
    examples: int, batch_size: int, n_epochs: int
) -> None:
    assert resolve(RequestedHyperparameters(), examples) == Hyperparameters(
        n_epochs=n_epochs, batch_size=batch_size, learning_rate_multiplier=1.0
    )


def test_auto_epochs_follow_a_batch_size_that_was_asked_for() -> None:
    # 40 examples in batches of 2 are 20 steps an epoch: 4 epochs give 80.
    assert resolve(RequestedHyperparameters(batch_size=2), 40).n_epochs == 4


@pytest.mark.parametrize(
    ("examples", "batch_size", "n_epochs"),
    [(10, 8, 25), (100, 8, 3), (320, 8, 1), (1_000_000, 8, 1)],  # 32, 3.2, 1, 0.0003
)
def test_auto_of_preferences_is_about_40_gentle_steps_and_a_beta(
    examples: int, batch_size: int, n_epochs: int
) -> None:
    requested = RequestedHyperparameters(beta="auto")
    assert resolve(requested, examples, TrainingMethod.DPO) == Hyperparameters(
        n_epochs=n_epochs, batch_size=batch_size, learning_rate_multiplier=0.2, beta=0.1
    )


def test_what_was_asked_for_preferences_is_kept() -> None:
    requested = RequestedHyperparameters(2, 3, 1.5, 2.0)
    assert resolve(requested, 50, TrainingMethod.DPO) == Hyperparameters(2, 3, 1.5, 2.0)


@untimed
@given(st.integers(1, 50), st.integers(1, 256), st.floats(1e-3, 1000), st.integers(1, 1_000_000))
def test_what_was_asked_for_is_what_is_trained_with(
    n_epochs: int, batch_size: int, multiplier: float, examples: int
) -> None:
    requested = RequestedHyperparameters(n_epochs, batch_size, multiplier)
    assert resolve(requested, examples) == Hyperparameters(n_epochs, batch_size, multiplier)
