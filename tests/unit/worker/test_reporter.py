"""Reports from a child process: real runs of wandb, offline, and children that are broken."""

import http.server
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.children import python
from support.rows import some_metrics, wait_for
from support.server import Process, descendants
from support.wandb_folder import OfflineRun, offline_runs
from tunery.domain.jobs import StepMetrics, WandbIntegration
from tunery.domain.ports.tracking import TrackedEnd, TrackedRun
from tunery.worker import reporter as module
from tunery.worker.messages import TRACKED
from tunery.worker.reporter import FAILED, FELL_BEHIND, LATE, ChildReporter

RUN = TrackedRun(
    "ftjob-1",
    ("ftjob-1",),
    (WandbIntegration("my-project", tags=("mine", "openai/finetune")),),
    ("openai/finetune", "openai/ftjob-1"),
    {"job_id": "ftjob-1", "seed": 7, "n_epochs": 3, "validation_file": None},
)
TWO = TrackedRun(
    "ftjob-2",
    ("ftjob-2", "ftjob-2-2"),
    (WandbIntegration("p", "a name", "team"), WandbIntegration("p")),
)
SUCCEEDED = TrackedEnd("succeeded", "ft:tiny:acme::aaaaaaaa", 99)
WHOLE = StepMetrics(1, 9, 0.5, 0.25, 0.75, 0.125, 1.5, 0.0625)


class Silence(http.server.BaseHTTPRequestHandler):
    """Notes that somebody came, whoever it was and whatever they wanted."""

    seen: list[str]

    def handle(self) -> None:
        self.seen.append(self.rfile.readline().decode("latin-1").strip())


@pytest.fixture
def visitors() -> Iterator[tuple[str, list[str]]]:
    """Return the address of a server that only notes who calls, and its notes."""
    seen: list[str] = []
    handler = type("Handler", (Silence,), {"seen": seen})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "TUNERY_DATA": str(folder),
        "HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "home"),
        **more,
    }


@contextmanager
def reporting(reporter: ChildReporter) -> Iterator[tuple[ChildReporter, list[str]]]:
    """Yield a reporter and what it warned of; at the end, nothing of it may be left."""
    warned: list[str] = []
    try:
        yield reporter, warned
    finally:
        reporter.close()
        wait_for(lambda: not ours(), "the end of every process")


def ours() -> list[Process]:
    return [one for one in descendants(os.getpid()) if "wandb" in one.command]


def ended(reporter: ChildReporter) -> Callable[[], bool]:
    return lambda: not any(one.lives for one in reporter._live.values())


def broken(script: str, **limits: float) -> ChildReporter:
    """Return a reporter whose child is this script."""
    return ChildReporter({}, (sys.executable, "-c", "import os, sys\n" + script), **limits)


def numbers(run: OfflineRun) -> list[dict[str, float]]:
    """Return the run's history without wandb's own clocks."""
    return [{k: v for k, v in row.items() if k[0] != "_" or k == "_step"} for row in run.history]


def test_a_run_is_written_offline_with_its_numbers_and_the_network_is_left_alone(
    tmp_path: Path, visitors: tuple[str, list[str]]
) -> None:
    url, seen = visitors
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url)
    settings = environment(
        tmp_path,
        **proxies,
        NO_PROXY="",
        no_proxy="",
        TUNERY_WANDB__BASE_URL=url,
        WANDB_MODE="online",  # what the operator's shell says to wandb is not asked
        WANDB_PROJECT="another",
        WANDB_API_KEY="x" * 40,
    )
    with reporting(ChildReporter(settings)) as (reporter, warned):
        reports = reporter.start(RUN, warned.append)
        reports.step(WHOLE)
        reports.step(some_metrics(2))
        reports.close(SUCCEEDED)
        wait_for(ended(reporter), "the end of the run")
        assert warned == []
    assert seen == []
    (run,) = offline_runs(tmp_path / "wandb")
    assert (run.id, run.project, run.name, run.entity) == ("ftjob-1", "my-project", "ftjob-1", "")
    assert run.tags == ["openai/finetune", "openai/ftjob-1", "mine"]
    assert run.config == RUN.config
    assert numbers(run) == [
        {
            "_step": 1,
            "train_loss": 0.5,
            "train_mean_token_accuracy": 0.25,
            "valid_loss": 0.75,
            "valid_mean_token_accuracy": 0.125,
            "full_valid_loss": 1.5,
            "full_valid_mean_token_accuracy": 0.0625,
        },
        {
            "_step": 2,
            "train_loss": pytest.approx(1 / 3),
            "train_mean_token_accuracy": 0.5,
        },
    ]
    assert run.summary["fine_tuned_model"] == "ft:tiny:acme::aaaaaaaa"
    assert (run.summary["status"], run.summary["trained_tokens"]) == ("succeeded", 99)
    assert run.exit_code == 0
    told = run.path.read_bytes()
    for secret in (str(tmp_path), os.uname().nodename, str(Path.home()), sys.executable):
        assert secret.encode() not in told
    assert not (tmp_path / "home").exists()


def test_a_job_that_goes_on_writes_the_same_run_after_the_part_before(tmp_path: Path) -> None:
    with reporting(ChildReporter(environment(tmp_path))) as (reporter, warned):
        for step, status in ((1, "paused"), (2, "failed")):
            reports = reporter.start(RUN, warned.append)
            reports.step(some_metrics(step))
            reports.close(TrackedEnd(status, None, None))
        wait_for(ended(reporter), "the end of both parts")
        assert warned == []
    parts = offline_runs(tmp_path / "wandb")
    assert [(part.id, part.history[0]["_step"], part.exit_code) for part in parts] == [
        ("ftjob-1", 1, 0),
        ("ftjob-1", 2, 1),
    ]


def test_each_integration_has_a_run_of_its_own(tmp_path: Path) -> None:
    with reporting(ChildReporter(environment(tmp_path))) as (reporter, warned):
        reports = reporter.start(TWO, warned.append)
        reports.step(some_metrics(1))
        reports.close(SUCCEEDED)
        wait_for(ended(reporter), "the end of the runs")
        assert warned == []
    runs = sorted(offline_runs(tmp_path / "wandb"), key=lambda run: run.id)
    assert [(run.id, run.name, run.entity) for run in runs] == [
        ("ftjob-2", "a name", "team"),
        ("ftjob-2-2", "ftjob-2", ""),
    ]
    assert [len(run.history) for run in runs] == [1, 1]


def test_without_the_package_there_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('none here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    settings = environment(tmp_path / "data", PYTHONPATH=path)
    with reporting(ChildReporter(settings)) as (reporter, warned):
        reports = reporter.start(RUN, warned.append)
        reports.step(some_metrics(1))
        reports.close(SUCCEEDED)
        wait_for(ended(reporter), "the end of the child")
    assert warned == ["the wandb package is not installed on this server"]


def test_a_refusal_is_told_without_its_text(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text(
        "class Refused(Exception): pass\n"
        "def init(**_): raise Refused('https://user:key@host')\n"
        "Settings = dict\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    settings = environment(tmp_path / "data", PYTHONPATH=path)
    with reporting(ChildReporter(settings)) as (reporter, warned):
        reporter.start(RUN, warned.append).close(SUCCEEDED)
        wait_for(ended(reporter), "the end of the child")
    assert warned == ["it could not be reached or refused the run (Refused)"]


def test_a_child_that_breaks_is_told_once() -> None:
    with reporting(broken("sys.exit(3)")) as (reporter, warned):
        reports = reporter.start(RUN, warned.append)
        for step in range(100):
            reports.step(some_metrics(step))
        reports.close(SUCCEEDED)
        wait_for(ended(reporter), "the end of the child")
    assert warned == [FAILED]


def test_a_child_that_takes_nothing_is_given_up_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    with reporting(broken("import threading; threading.Event().wait()")) as (reporter, warned):
        reports = reporter.start(RUN, warned.append)
        wait_for(lambda: bool(reports.pid), "the child")
        long = StepMetrics(1, 1, 1.0, 1.0)
        for _ in range(20_000):  # more than a pipe and five lines hold
            reports.step(long)
        reports.close(SUCCEEDED)
        wait_for(ended(reporter), "the end of the child")
    assert warned == [FELL_BEHIND]


def test_a_child_that_does_not_end_is_ended() -> None:
    script = "import threading; threading.Event().wait()"
    with reporting(broken(script, end_s=0.2)) as (reporter, warned):
        reporter.start(RUN, warned.append).close(SUCCEEDED)
        wait_for(ended(reporter), "the end of the child")
    assert warned == [LATE]


def test_a_reporter_that_is_closed_leaves_nothing_and_blames_nobody() -> None:
    script = "import threading; threading.Event().wait()"
    reporter = broken(script, stop_s=0.2)
    with reporting(reporter) as (_, warned):
        reports = [reporter.start(run, warned.append) for run in (RUN, TWO)]
        for one in reports:
            one.close(SUCCEEDED)
        reporter.close()
        assert not [one for one in reports if one.lives]
    assert warned == []


PARENT = """
import sys
from tunery.domain.jobs import StepMetrics
from tunery.worker.messages import TRACKED
from tunery.worker.reporter import ChildReporter
from tunery.worker.messages import TRACKED
reports = ChildReporter({"TUNERY_DATA": sys.argv[1]}).start(
    TRACKED.validate_json(sys.argv[2]), print
)
reports.step(StepMetrics(1, 9, 0.5, 0.25))
sys.stdin.readline()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_parent_that_is_killed_leaves_a_whole_run_and_no_process(tmp_path: Path) -> None:
    with python(PARENT, str(tmp_path), TRACKED.dump_json(RUN).decode()) as parent:
        folder = tmp_path / "wandb/wandb"
        wait_for(lambda: bool(list(folder.glob("*/*.wandb"))), "the run's file")
        children = descendants(parent.pid)
        assert any(one.command.endswith("child wandb") for one in children)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(timeout=60)
        wait_for(lambda: not [one for one in children if one.lives], "the end of the children")
    (run,) = offline_runs(tmp_path / "wandb")
    assert (run.id, run.exit_code) == ("ftjob-1", 1)
    assert numbers(run) == [{"_step": 1, "train_loss": 0.5, "train_mean_token_accuracy": 0.25}]
