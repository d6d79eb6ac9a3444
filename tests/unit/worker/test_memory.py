"""What the kernel counts of processes that it killed for want of memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.rows import wait_for
from tunery.worker.memory import oom_kills

MACHINE = "nr_free_pages 17\noom_kill 5\noom_killer_noise 9\n"
EVENTS = "low 0\nhigh 0\nmax 12\noom 4\noom_kill 3\noom_group_kill 0\n"  # of version 2
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"  # of version 1


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 0),  # another system
        ({"proc/vmstat": MACHINE}, 5),
        ({"proc/vmstat": MACHINE, "proc/self/cgroup": "0::/\n"}, 5),  # the root counts nothing
        ({"proc/vmstat": MACHINE, "proc/self/cgroup": "nonsense\n"}, 5),
        ({"proc/vmstat": "nr_free_pages 17\n"}, 0),  # an old kernel
        (
            {
                "proc/vmstat": MACHINE,
                "proc/self/cgroup": "0::/user/tunery:1\n",
                "sys/fs/cgroup/user/tunery:1/memory.events": EVENTS,
            },
            3,
        ),
        (
            {
                "proc/vmstat": MACHINE,
                "proc/self/cgroup": "5:cpu:/a\n4:hugetlb,memory:/b/c\n1:name=systemd:/d\n",
                "sys/fs/cgroup/memory/b/c/memory.oom_control": CONTROL,
            },
            2,
        ),
    ],
)
def test_the_kills_of_the_own_group_are_counted_or_else_the_machines(
    tmp_path: Path, files: dict[str, str], count: int
) -> None:
    assert oom_kills(put(tmp_path, files)) == count


LIMIT = 96 * 2**20

# A worker in a group of LIMIT bytes, and a child of the real command's kind that wants more.
WORKER = """
import sys
from tunery.domain.jobs import Hyperparameters
from tunery.domain.ports.training import TrainingRun
from tunery.worker.executor import LocalExecutor
child = '''
import sys
from tunery.cli.children import _first_to_go
_first_to_go()
sys.stdin.readline()
kept = bytearray()
while True:
    kept += bytes(2**20)
'''
sys.stdin.readline()  # by now it is in its group
executor = LocalExecutor({}, (sys.executable, "-c", child))
run = executor.start(
    TrainingRun("j", "b", "d", "k", None, Hyperparameters(1, 1, 1.0), 1, "p")
)
while not run.finished:
    for report in run.reports(1.0):
        print(report.code, report.message)
run.stop()
print("the worker lives")
"""


@pytest.fixture
def small_group() -> Iterator[Path]:
    """Yield a control group that takes LIMIT bytes of memory."""
    own = Path("/proc/self/cgroup")
    lines = own.read_text().splitlines() if own.exists() else []
    group, limit = None, ""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            group, limit = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        elif not controllers and (Path("/sys/fs/cgroup") / "cgroup.controllers").exists():
            group, limit = Path("/sys/fs/cgroup") / path.lstrip("/"), "memory.max"
    if group is None:
        pytest.skip("there are no control groups for memory here")
    group = group / f"tunery-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"a small group needs the right to make one: {error.strerror}")
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text(), "the end of the group's processes")
    group.rmdir()


def test_a_child_that_the_kernel_kills_has_run_out_of_memory_and_the_worker_lives(
    small_group: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            (small_group / "cgroup.procs").write_text(str(worker.pid))
            out, err = worker.communicate("go\n", timeout=60)
        finally:
            worker.kill()
    failed, lives = out.splitlines()
    assert failed.startswith("out_of_memory Training needed more memory than the machine has;"), err
    assert lives == "the worker lives"
    assert worker.returncode == 0
