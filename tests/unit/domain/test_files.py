"""Purposes and what they ask of a file; what the check of a file says in one text."""

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.domain.files import (
    UPLOAD_PURPOSES,
    FilePurpose,
    FileReport,
    LineError,
    expiry_of,
    known_purpose,
    size_limit,
    upload_purpose,
)


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


def test_files_that_are_made_here_cannot_be_uploaded() -> None:
    assert set(UPLOAD_PURPOSES) == {
        "assistants",
        "batch",
        "fine-tune",
        "vision",
        "user_data",
        "evals",
    }
    for made in ("fine-tune-results", "batch_output", "assistants_output"):
        assert known_purpose(made) == made
        with pytest.raises(InvalidRequest, match=f"'{made}' is not one of"):
            upload_purpose(made)


def test_an_unknown_purpose_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidRequest) as refused:
        known_purpose("nope")
    assert refused.value.param == "purpose"
    assert all(f"'{purpose}'" in refused.value.message for purpose in FilePurpose)


def test_a_batch_file_has_at_most_200_mb_and_no_more_than_any() -> None:
    assert size_limit(FilePurpose.BATCH, 10**12) == 209_715_200
    assert size_limit(FilePurpose.BATCH, 1000) == 1000
    assert size_limit(FilePurpose.FINE_TUNE, 10**12) == 10**12


def test_a_file_expires_when_asked_and_a_batch_file_after_thirty_days() -> None:
    assert expiry_of(FilePurpose.FINE_TUNE, 1000, None) is None
    assert expiry_of(FilePurpose.FINE_TUNE, 1000, 3600) == 4600
    assert expiry_of(FilePurpose.BATCH, 1000, None) == 1000 + 2_592_000
    assert expiry_of(FilePurpose.BATCH, 1000, 3600) == 4600
