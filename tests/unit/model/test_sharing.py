"""Cores are shared while both compute, and nobody's for longer than that."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tunery.model.sharing import ENGINE, FRESH_S, RENEW_S, RUN, EngineShare, Mark

needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="one core is not shared"
)


def age(folder: Path, name: str, seconds: float) -> None:
    """Make a mark older."""
    path = folder / f"{name}.computes"
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_mark_is_fresh_for_a_while_and_only_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    mark = Mark(folder, RUN)
    assert not mark.is_fresh()
    mark.touch()
    assert mark.is_fresh()
    assert Mark(folder, RUN).is_fresh()
    assert not Mark(folder, ENGINE).is_fresh()
    age(folder, RUN, FRESH_S + 1)
    assert not mark.is_fresh()
    mark.touch()
    assert mark.is_fresh()


def test_a_mark_that_cannot_be_made_harms_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    mark = Mark(file, RUN)
    mark.touch()
    assert not mark.is_fresh()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "half"), [(1, 1), (2, 1), (5, 3), (8, 4)])
def test_an_engine_takes_half_the_threads_while_a_run_computes(
    tmp_path: Path, threads: None, cores: int, half: int
) -> None:
    now = 100.0
    torch.set_num_threads(cores)
    share = EngineShare(tmp_path, lambda: now)
    share()
    assert torch.get_num_threads() == cores
    assert Mark(tmp_path, ENGINE).is_fresh()
    Mark(tmp_path, RUN).touch()
    share()  # at the next look, not at every step
    assert torch.get_num_threads() == cores
    now += RENEW_S
    share()
    assert torch.get_num_threads() == half
    age(tmp_path, RUN, FRESH_S + 1)
    now += RENEW_S
    share()
    assert torch.get_num_threads() == cores


_RUN = """
import sys, threading, time
from pathlib import Path
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from tunery.model.sharing import share_run
share_run(Path(sys.argv[1]))
print("up", flush=True)
time.sleep(60)
"""


@needs_two_cores
def test_a_run_keeps_to_half_of_the_cores_while_an_engine_computes(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    half = cores[(len(cores) + 1) // 2 :]
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            until(lambda: Mark(tmp_path, RUN).is_fresh())
            assert cores_of_threads(process.pid) == [cores] * len(cores_of_threads(process.pid))

            def kept() -> bool:
                Mark(tmp_path, ENGINE).touch()
                found = cores_of_threads(process.pid)
                return len(found) >= 3 and all(one == half for one in found)

            until(kept)
            age(tmp_path, ENGINE, FRESH_S + 1)
            until(lambda: all(one == cores for one in cores_of_threads(process.pid)))
        finally:
            process.kill()


def cores_of_threads(pid: int) -> list[list[int]]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [sorted(os.sched_getaffinity(int(task.name))) for task in tasks]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass within 30 s"
        time.sleep(0.05)
