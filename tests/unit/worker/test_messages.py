"""What goes to a child process and back arrives as it was."""

import pytest

from support.rows import an_epoch, some_metrics
from tunery.domain.jobs import (
    Adapter,
    Hyperparameters,
    Snapshot,
    StepMetrics,
    TrainingMethod,
    WandbIntegration,
)
from tunery.domain.ports.tracking import TrackedEnd, TrackedRun
from tunery.domain.ports.training import (
    MadeWith,
    ProofRequest,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPaused,
    RunStarted,
    TrainingReport,
    TrainingRun,
)
from tunery.worker.messages import (
    PROOF,
    RUN,
    SCORES,
    TRACKED,
    decode_problem,
    decode_report,
    decode_tracked,
    encode_problem,
    encode_report,
    encode_tracked,
)

REPORTS: list[TrainingReport] = [
    RunStarted(10, 3),
    some_metrics(4),
    StepMetrics(1, 9, 0.1, 0.2, 0.3, 0.4, 0.5, 1 / 3),
    StepMetrics(1, 9, 0.1, 0.2, train_chosen_reward=-1 / 3, full_valid_reward_accuracy=1.0),
    an_epoch(7),
    Snapshot(8, "p/snap"),
    RunFinished(2**40),
    RunPaused(),
    RunInterrupted("The disk is full."),
    RunFailed("non_finite_loss", "At step 9.", 7),
    RunFailed("server_error", "Two\nlines, 'quotes' and \U0001f600"),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: type(report).__name__)
def test_a_report_arrives_as_it_was_sent_on_one_line(report: TrainingReport) -> None:
    line = encode_report(report)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_report(line) == report


def test_what_a_run_is_made_with_arrives_with_its_start() -> None:
    made_with = MadeWith("a", "b", "c", "d", "e", "f", "g", 2, "b", None, "t", None, "r")
    told = decode_report(encode_report(RunStarted(10, 3, made_with)))
    assert isinstance(told, RunStarted)
    assert told.made_with == made_with


@pytest.mark.parametrize(
    ("parent", "snapshot"), [(None, None), (Adapter("p/a", "0" * 64), Snapshot(3, "p/s", "a" * 64))]
)
@pytest.mark.parametrize(
    ("trained", "beta"), [(TrainingMethod.SUPERVISED, None), (TrainingMethod.DPO, 1 / 3)]
)
def test_an_order_to_train_arrives_as_it_was_given(
    trained: TrainingMethod, beta: float | None, parent: Adapter | None, snapshot: Snapshot | None
) -> None:
    run = TrainingRun(
        job_id="ftjob-1",
        base="tiny",
        base_digest="d" * 64,
        training_key="p/files/file-1",
        validation_key=None if parent is None else "p/files/file-2",
        hyperparameters=Hyperparameters(3, 8, 1 / 3, beta),
        seed=2**31 - 1,
        output_prefix="p/jobs/ftjob-1/attempt-1",
        start_from=parent,
        resume_from=snapshot,
        method=trained,
    )
    order = RUN.dump_json(run)
    assert b"\n" not in order
    assert RUN.validate_json(order) == run


def test_an_order_to_score_and_its_answer_arrive_as_they_were() -> None:
    request = ProofRequest("tiny", "d" * 64, (Adapter("p/a", "0" * 64),), ((1, 2), (3,)))
    assert PROOF.validate_json(PROOF.dump_json(request)) == request
    scores = [[[-0.1, -1 / 3], []], [[-1e-30]]]
    assert SCORES.validate_json(SCORES.dump_json(scores)) == scores


@pytest.mark.parametrize("report", [some_metrics(4), TrackedEnd("succeeded", "ft:x", 9)])
def test_what_is_reported_elsewhere_arrives_as_it_was_sent(
    report: StepMetrics | TrackedEnd,
) -> None:
    line = encode_tracked(report)
    assert line.count(b"\n") == 1
    assert decode_tracked(line) == report


def test_an_order_to_report_and_a_problem_with_it_arrive_as_they_were() -> None:
    wanted = (WandbIntegration("p", "n", None, ("a", "b")), WandbIntegration("q"))
    run = TrackedRun("ftjob-1", ("ftjob-1", "ftjob-1-2"), wanted, ("t",), {"seed": 1})
    order = TRACKED.dump_json(run)
    assert b"\n" not in order
    assert TRACKED.validate_json(order) == run
    line = encode_problem("two\nlines")
    assert line.count(b"\n") == 1
    assert decode_problem(line) == "two\nlines"
