"""What the check of a file says in one text."""

import pytest

from tunery.domain.files import UPLOAD_PURPOSES, FileReport, LineError


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, "line 3: not JSON; line 9: no messages"),
        (7, "line 3: not JSON; line 9: no messages; and 5 more"),
    ],
)
def test_a_summary_lists_the_kept_errors_and_counts_the_rest(count: int, expected: str) -> None:
    errors = (LineError(3, "not JSON"), LineError(9, "no messages"))
    assert FileReport(10, errors, count).summary() == expected


def test_result_files_cannot_be_uploaded() -> None:
    assert set(UPLOAD_PURPOSES) == {
        "assistants",
        "batch",
        "fine-tune",
        "vision",
        "user_data",
        "evals",
    }
