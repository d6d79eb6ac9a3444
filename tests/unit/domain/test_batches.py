"""The states of a batch, and the lines that its answers become."""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.domain.batches import (
    TERMINAL,
    BatchEvent,
    BatchStatus,
    Reply,
    answered,
    line_key,
    next_status,
    not_run,
    request_id,
)
from tunery.domain.errors import Conflict

LEGAL = {
    "validating": {
        "accepted": "in_progress",
        "failed": "failed",
        "expired": "expired",
        "cancelling": "cancelling",
    },
    "in_progress": {
        "answered": "finalizing",
        "failed": "failed",
        "expired": "expired",
        "cancelling": "cancelling",
    },
    "finalizing": {"completed": "completed", "failed": "failed"},
    "cancelling": {"cancelled": "cancelled"},
    "completed": {},
    "failed": {},
    "expired": {},
    "cancelled": {},
}


def test_the_states_are_those_of_openai() -> None:
    assert {status.value for status in BatchStatus} == set(LEGAL)


@pytest.mark.parametrize(("status", "event"), [*product(BatchStatus, BatchEvent)])
def test_a_step_leads_where_the_life_of_a_batch_says_and_others_are_conflicts(
    status: BatchStatus, event: BatchEvent
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


@untimed
@given(st.lists(st.sampled_from(BatchEvent)))
def test_whatever_happens_a_batch_never_comes_back_to_a_state(events: list[BatchEvent]) -> None:
    passed = [BatchStatus.VALIDATING]
    for event in events:
        try:
            passed.append(next_status(passed[-1], event))
        except Conflict:
            continue
    assert len(set(passed)) == len(passed)
    assert not any(state in TERMINAL for state, _ in pairwise(passed))


@untimed
@given(st.sets(st.tuples(st.sampled_from(["batch_a", "batch_b1"]), st.integers(1, 50_000))))
def test_a_lines_ids_are_its_own_and_the_same_each_time(lines: set[tuple[str, int]]) -> None:
    keys = {line_key(batch_id, line) for batch_id, line in lines}
    assert len(keys) == len(lines)
    assert keys == {line_key(batch_id, line) for batch_id, line in lines}
    assert all(len(request_id(*line)) <= 64 for line in lines)  # what the ledger takes


@pytest.mark.parametrize(("status", "succeeded"), [(200, True), (400, False), (500, False)])
def test_an_answer_becomes_a_line_as_openai_writes_it(status: int, succeeded: bool) -> None:
    line = answered("batch_1", 7, "mine", Reply(status, {"b": 1}, 3, 4))
    key = line_key("batch_1", 7)
    assert (line.line, line.succeeded, line.input_tokens, line.output_tokens) == (
        7,
        succeeded,
        3,
        4,
    )
    assert line.output == {
        "id": f"batch_req_{key}",
        "custom_id": "mine",
        "response": {"status_code": status, "request_id": f"req_{key}", "body": {"b": 1}},
        "error": None,
    }


def test_a_line_that_was_not_run_says_why() -> None:
    line = not_run("batch_1", 7, "mine", ("batch_expired", "Too late."))
    assert not line.succeeded
    assert line.output == {
        "id": f"batch_req_{line_key('batch_1', 7)}",
        "custom_id": "mine",
        "response": None,
        "error": {"code": "batch_expired", "message": "Too late."},
    }
