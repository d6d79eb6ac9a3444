"""What a training step says, and the result file."""

import csv
import io

import pytest

from tunery.domain.jobs import StepMetrics
from tunery.services.training import results_csv, step_message

STEPS = [
    StepMetrics(1, 3, 2.0, 0.5),
    StepMetrics(2, 3, 1.234567, 0.0, valid_loss=1.5, valid_mean_token_accuracy=1.0),
    StepMetrics(3, 3, 0.000004, 1.0, valid_loss=0.1, full_valid_loss=9.0),
]


def test_the_result_file_has_openais_columns_and_blanks_where_there_is_no_number() -> None:
    assert results_csv(STEPS).decode() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
        "1,2.00000,0.50000,,\n"
        "2,1.23457,0.00000,1.50000,1.00000\n"
        "3,0.00000,1.00000,0.10000,\n"
    )


def test_the_result_file_is_read_back_by_any_csv_reader() -> None:
    rows = list(csv.DictReader(io.StringIO(results_csv(STEPS).decode())))
    assert [float(row["train_loss"]) for row in rows] == pytest.approx([2, 1.234567, 0], abs=1e-5)
    assert [row["valid_loss"] for row in rows] == ["", "1.50000", "0.10000"]


def test_rewards_stand_behind_openais_columns_where_there_are_any() -> None:
    steps = [
        StepMetrics(
            1,
            2,
            0.5,
            0.25,
            train_chosen_reward=1.0,
            train_rejected_reward=-0.5,
            train_reward_margin=1.5,
            train_reward_accuracy=0.75,
        ),
        StepMetrics(
            2,
            2,
            0.25,
            0.5,
            train_reward_margin=0.0,
            valid_loss=2.0,
            valid_chosen_reward=0.125,
            valid_rejected_reward=3.0,
            valid_reward_margin=-2.875,
            valid_reward_accuracy=0.0,
        ),
    ]
    assert results_csv(steps).decode() == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,"
        "train_chosen_reward,train_rejected_reward,train_reward_margin,train_reward_accuracy,"
        "valid_chosen_reward,valid_rejected_reward,valid_reward_margin,valid_reward_accuracy\n"
        "1,0.50000,0.25000,,,1.00000,-0.50000,1.50000,0.75000,,,,\n"
        "2,0.25000,0.50000,2.00000,,,,0.00000,,0.12500,3.00000,-2.87500,0.00000\n"
    )


def test_without_steps_the_result_file_is_its_header() -> None:
    assert results_csv([]).count(b"\n") == 1


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (STEPS[0], "Step 1/3: training loss=2.00"),
        (STEPS[1], "Step 2/3: training loss=1.23, validation loss=1.50"),
        (
            STEPS[2],
            "Step 3/3: training loss=0.00, validation loss=0.10, full validation loss=9.00",
        ),
        (
            StepMetrics(4, 9, 1.0, 1.0, full_valid_loss=0.0),
            "Step 4/9: training loss=1.00, full validation loss=0.00",
        ),
    ],
)
def test_a_step_is_told_as_openai_tells_it(metrics: StepMetrics, expected: str) -> None:
    assert step_message(metrics) == expected
