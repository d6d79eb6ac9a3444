"""What auto is held against, and what it may be behind."""

import pytest
from quality_statistics import Estimate
from quality_sweep import AXES, holds_up, neighbours

from tunery.domain.jobs import Hyperparameters


def test_a_sweep_goes_one_step_to_each_side() -> None:
    assert neighbours(Hyperparameters(4, 8, 1.0), AXES) == {
        "rate / 2": Hyperparameters(4, 8, 0.5),
        "rate x 2": Hyperparameters(4, 8, 2.0),
        "epochs / 2": Hyperparameters(2, 8, 1.0),
        "epochs x 2": Hyperparameters(8, 8, 1.0),
        "batch / 2": Hyperparameters(4, 4, 1.0),
        "batch x 2": Hyperparameters(4, 16, 1.0),
    }


def test_a_sweep_keeps_to_its_axes_and_to_the_ranges_of_a_job() -> None:
    # Half of one epoch or of one example is none; 50 epochs and 256 examples are the most.
    least, most = Hyperparameters(1, 1, 1.0), Hyperparameters(50, 256, 1.0)
    assert set(neighbours(least, ("epochs", "batch"))) == {"epochs x 2", "batch x 2"}
    assert set(neighbours(most, ("epochs", "batch"))) == {"epochs / 2", "batch / 2"}
    assert neighbours(least, ()) == {}


@pytest.mark.parametrize(
    ("value", "low", "high", "holds"),
    [
        (0.03, 0.01, 0.05, True),  # ahead
        (-0.02, -0.03, -0.01, True),  # two points behind
        (-0.021, -0.03, -0.01, False),
        (-0.05, -0.11, 0.0, True),  # not told apart
        (-0.05, -0.09, -0.001, False),
    ],
)
def test_auto_holds_up_within_two_points_or_the_interval(
    value: float, low: float, high: float, holds: bool
) -> None:
    assert holds_up(Estimate(value, low, high)) is holds
