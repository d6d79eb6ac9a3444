"""The states of a job: every legal step, and no other."""

from itertools import product

import pytest

from tunery.domain.errors import Conflict
from tunery.domain.jobs import TERMINAL, JobEvent, JobStatus, next_status

LEGAL = {
    "validating_files": {
        "files_accepted": "queued",
        "failed": "failed",
        "cancelled": "cancelled",
    },
    "queued": {
        "started": "running",
        "paused": "paused",
        "failed": "failed",
        "cancelled": "cancelled",
    },
    "running": {
        "published": "succeeded",
        "paused": "paused",
        "failed": "failed",
        "cancelled": "cancelled",
    },
    "paused": {"resumed": "queued", "failed": "failed", "cancelled": "cancelled"},
    "succeeded": {},
    "failed": {},
    "cancelled": {},
}


def test_the_states_are_those_of_openai_and_paused() -> None:
    assert {status.value for status in JobStatus} == set(LEGAL)


@pytest.mark.parametrize(("status", "event"), [*product(JobStatus, JobEvent)])
def test_a_step_leads_where_the_life_of_a_job_says_and_others_are_conflicts(
    status: JobStatus, event: JobEvent
) -> None:
    expected = LEGAL[status.value].get(event.value)
    if expected is not None:
        assert next_status(status, event) == expected
        return
    with pytest.raises(Conflict) as caught:
        next_status(status, event)
    assert status.value in caught.value.message
    for step in LEGAL[status.value]:
        assert step in caught.value.message


def test_the_terminal_states_are_those_without_a_next_step() -> None:
    assert {status.value for status in TERMINAL} == {s for s, steps in LEGAL.items() if not steps}
