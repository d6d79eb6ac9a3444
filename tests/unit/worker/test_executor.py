"""Child processes: what they report comes through, and how they end is told."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.children import line_of, python
from support.rows import an_epoch, some_metrics, wait_for
from tunery.domain.errors import Unavailable
from tunery.domain.jobs import Hyperparameters, Snapshot
from tunery.domain.ports.training import (
    OUT_OF_MEMORY,
    ProofRequest,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPaused,
    RunStarted,
    TrainingReport,
    TrainingRun,
)
from tunery.worker.executor import ChildDied, LocalExecutor, LocalRun
from tunery.worker.messages import encode_report

RUN = TrainingRun("j", "b", "d", "k", None, Hyperparameters(1, 1, 1.0), 1, "p")
REQUEST = ProofRequest("b", "d", (), ((1, 2),))
REPORTS: list[TrainingReport] = [
    RunStarted(2, 0),
    some_metrics(1),
    an_epoch(1),
    Snapshot(1, "p/s"),
    RunFinished(5),
]


def executor(script: str) -> LocalExecutor:
    return LocalExecutor({}, (sys.executable, "-c", "import os, sys\n" + script))


@contextmanager
def started(script: str) -> Iterator[LocalRun]:
    run = executor(script).start(RUN)
    try:
        yield run
    finally:
        run.stop()


def all_reports(run: LocalRun) -> list[TrainingReport]:
    reports: list[TrainingReport] = []
    while not run.finished:
        reports += run.reports(wait_s=1.0)
    return reports


def test_reports_come_through_in_order() -> None:
    lines = b"".join(map(encode_report, REPORTS))
    script = f"sys.stdin.readline(); os.write(1, {lines!r})"
    with started(script) as run:
        assert all_reports(run) == REPORTS


def test_a_child_gets_its_order_on_one_line() -> None:
    script = """
from tunery.worker.messages import RUN, encode_report
from tunery.domain.ports.training import RunFailed
run = RUN.validate_json(sys.stdin.readline())
os.write(1, encode_report(RunFailed(sys.argv[1], run.output_prefix)))
"""
    with started(script) as run:
        assert all_reports(run) == [RunFailed("train", "p")]


def test_a_run_without_news_gives_none_and_is_not_finished() -> None:
    with started("sys.stdin.readline(); sys.stdin.readline()") as run:
        assert list(run.reports(wait_s=0.01)) == []
        assert not run.finished
        run.stop()
        with pytest.raises(ChildDied, match="SIGKILL"):
            all_reports(run)


def test_a_pause_reaches_the_child_once_as_a_line_of_its_own() -> None:
    script = f"""
sys.stdin.readline()
os.write(1, {encode_report(RunStarted(2, 0))!r})
heard = sys.stdin.readline()
if heard == "pause\\n":
    os.write(1, {encode_report(RunPaused())!r})
sys.exit(sys.stdin.readline())
"""
    with started(script) as run:
        assert next(run.reports(wait_s=30)) == RunStarted(2, 0)
        run.pause()
        run.pause()  # once is enough: a second line would be the script's error
        assert next(run.reports(wait_s=30)) == RunPaused()


def test_a_pause_of_a_child_that_has_ended_changes_nothing() -> None:
    with started(f"sys.stdin.readline(); os.write(1, {encode_report(RunFinished(5))!r})") as run:
        assert all_reports(run) == [RunFinished(5)]
        run.pause()
        assert run.finished


# Reads its order with the code of the real children, and says what it hears after it.
HEARING = """
import threading
from tunery.cli.children import _order
heard = threading.Event()
order = _order(lambda line: heard.set() if line == b"pause" else os._exit(3))
from tunery.worker.messages import RUN, encode_report
from tunery.domain.ports.training import RunFailed
RUN.validate_json(order)
heard.wait(60)
os.write(1, encode_report(RunFailed("heard", str(heard.is_set()))))
"""


def test_a_pause_that_comes_with_the_order_is_heard() -> None:
    with started("import time; time.sleep(0.2)\n" + HEARING) as run:
        run.pause()
        assert all_reports(run) == [RunFailed("heard", "True")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_killed_by_a_signal_has_died_after_its_reports(
    number: signal.Signals,
) -> None:
    half = encode_report(some_metrics(1)) + encode_report(some_metrics(2))[:-5]
    script = f"sys.stdin.readline(); os.write(1, {half!r}); os.kill(os.getpid(), {int(number)})"
    with started(script) as run:
        reports = run.reports(wait_s=30)
        assert next(reports) == some_metrics(1)
        with pytest.raises(ChildDied, match=number.name):
            next(reports)
        assert run.finished


@pytest.mark.parametrize("counts", [(4, 5), (4, 4)])
def test_a_child_killed_while_memory_ran_out_needed_too_much(counts: tuple[int, int]) -> None:
    counted = iter(counts)
    script = f"""
sys.stdin.readline()
os.write(1, {encode_report(some_metrics(1))!r})
os.kill(os.getpid(), 9)
"""
    command = (sys.executable, "-c", "import os, sys\n" + script)
    run = LocalExecutor({}, command, lambda: next(counted)).start(RUN)
    try:
        reports = run.reports(wait_s=30)
        assert next(reports) == some_metrics(1)
        if counts[1] > counts[0]:
            assert next(reports) == OUT_OF_MEMORY
            assert next(reports, None) is None
        else:
            with pytest.raises(ChildDied, match="SIGKILL"):
                next(reports)
        assert run.finished
    finally:
        run.stop()


def test_a_child_whose_cpp_threads_get_no_memory_needed_too_much() -> None:
    told = "terminate called after throwing an instance of 'std::bad_alloc'"
    with started(f"sys.stdin.readline(); os.write(2, {told.encode()!r}); os.abort()") as run:
        assert all_reports(run) == [OUT_OF_MEMORY]


def test_an_interrupted_run_says_why_and_its_end_is_no_failure() -> None:
    report = RunInterrupted("The disk is full.")
    script = f"sys.stdin.readline(); os.write(1, {encode_report(report)!r}); sys.exit(1)"
    with started(script) as run:
        assert all_reports(run) == [report]


def test_a_child_that_ends_by_an_error_fails_with_its_last_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    script = "sys.stdin.readline(); print('é first', file=sys.stderr); raise ValueError('no disk')"
    with started(script) as run:
        (report,) = all_reports(run)
    assert isinstance(report, RunFailed)
    assert report.code == "server_error"
    assert report.message.endswith("ValueError: no disk")
    assert "first" in capfd.readouterr().err  # passed on to the worker's log


def test_a_child_that_says_nothing_and_fails_has_failed() -> None:
    with started("sys.stdin.readline(); sys.exit(1)") as run:
        (report,) = all_reports(run)
    assert isinstance(report, RunFailed)


def test_a_run_that_has_ended_is_left_by_stop_as_it_is() -> None:
    with started(f"sys.stdin.readline(); os.write(1, {encode_report(RunFinished(5))!r})") as run:
        assert all_reports(run) == [RunFinished(5)]
        run.stop()
        run.stop()
        assert run.finished


def test_the_reference_gives_its_scores() -> None:
    scores = executor("sys.stdin.readline(); print('[[[-0.5], []]]')").reference(REQUEST)
    assert scores == [[[-0.5], []]]


def test_a_reference_that_fails_is_told_as_unavailable() -> None:
    script = "sys.stdin.readline(); sys.exit('no such model')"
    with pytest.raises(Unavailable, match="no such model") as told:
        executor(script).reference(REQUEST)
    assert told.value.code == "reference_failed"


def test_a_reference_that_fails_before_it_read_a_long_order_is_told_as_unavailable() -> None:
    long = ProofRequest("b", "d", (), (tuple(range(200_000)),))  # more than a pipe holds
    with pytest.raises(Unavailable, match="no torch"):
        executor("os.close(0); sys.exit('no torch')").reference(long)


def test_a_line_that_is_no_report_ends_the_run() -> None:
    with started("sys.stdin.readline(); print('hello', flush=True)") as run:
        ended: list[TrainingReport] = []
        for _ in range(30):
            ended += run.reports(wait_s=0.1)
        assert run.finished
    assert [type(report) for report in ended] == [RunFailed]


# The child reads its order and watches its parent with the code that the real children use.
PARENT = """
import sys
from tunery.worker.executor import LocalExecutor
from tunery.domain.jobs import Hyperparameters
from tunery.domain.ports.training import TrainingRun
child = '''
import threading
from tunery.cli.children import _order
_order()
from tunery.worker.messages import encode_report
from tunery.domain.ports.training import RunStarted
import os
os.write(1, encode_report(RunStarted(1, 0)))
threading.Event().wait()
'''
run = LocalExecutor({}, (sys.executable, "-c", child)).start(
    TrainingRun("j", "b", "d", "k", None, Hyperparameters(1, 1, 1.0), 1, "p")
)
next(run.reports(60))
print(run.pid, flush=True)
sys.stdin.readline()
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_child_dies_with_a_parent_that_was_killed() -> None:
    with python(PARENT) as parent:
        pid = int(line_of(parent))
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(timeout=60)
        wait_for(lambda: not alive(pid), "the end of the child")
