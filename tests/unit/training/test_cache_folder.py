"""The token caches of a machine's jobs: held, bounded, removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunery.domain.errors import StorageFull
from tunery.training.cache_folder import CacheFolder

ONE, TWO, THREE = (f"p/jobs/ftjob-{n}" for n in (1, 2, 3))


def fill(caches: CacheFolder, job: str, size: int, used_at: int) -> Path:
    """Have a job use `size` bytes, last at `used_at`."""
    with caches.held(job) as folder:
        (folder / "shard").write_bytes(b"x" * size)
    os.utime(folder, (used_at, used_at))
    return folder


def on_disk(root: Path) -> int:
    """Return what an empty tree of so many folders takes."""
    return sum(path.stat().st_size for path in root.rglob("*"))


def test_a_job_has_a_private_folder_of_its_own_that_stays_until_it_is_removed(
    tmp_path: Path,
) -> None:
    caches = CacheFolder(tmp_path, 2**30)
    folder = fill(caches, ONE, 10, 1)
    fill(caches, TWO, 10, 2)
    assert folder.stat().st_mode & 0o077 == 0
    assert caches.jobs() == [ONE, TWO]
    with caches.held(ONE) as again:
        assert again == folder
        assert (again / "shard").read_bytes() == b"x" * 10
    assert caches.jobs() == [TWO, ONE]
    assert caches.remove(ONE)
    assert caches.jobs() == [TWO]
    assert not folder.exists()
    assert caches.remove(ONE)  # a second time changes nothing


def test_a_job_whose_run_reads_is_not_removed(tmp_path: Path) -> None:
    caches, other = CacheFolder(tmp_path, 2**30), CacheFolder(tmp_path, 2**30)
    with caches.held(ONE) as folder, other.held(ONE):
        (folder / "shard").write_bytes(b"x")
        assert not other.remove(ONE)
        assert (folder / "shard").exists()
    assert other.remove(ONE)


def test_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path;"
        "from tunery.training.cache_folder import CacheFolder\n"
        f"with CacheFolder(Path(sys.argv[1]), 2**30).held({ONE!r}):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    caches = CacheFolder(tmp_path, 2**30)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert not caches.remove(ONE)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert caches.jobs() == [ONE]
    assert caches.remove(ONE)


def test_the_longest_unused_make_room_and_no_more_of_them_than_needed(tmp_path: Path) -> None:
    fill(CacheFolder(tmp_path, 2**30), ONE, 100_000, 1)
    fill(CacheFolder(tmp_path, 2**30), TWO, 100_000, 2)
    fill(CacheFolder(tmp_path, 2**30), THREE, 100_000, 3)
    caches = CacheFolder(tmp_path, on_disk(tmp_path) + 50_000)
    with caches.held(THREE):
        caches.make_room(THREE, 50_000)
        assert len(caches.jobs()) == 3
        caches.make_room(THREE, 100_000)
        assert caches.jobs() == [TWO, THREE]


def test_a_job_that_runs_keeps_its_place_and_one_that_finds_none_is_told(tmp_path: Path) -> None:
    fill(CacheFolder(tmp_path, 2**30), ONE, 100_000, 1)
    fill(CacheFolder(tmp_path, 2**30), TWO, 100_000, 2)
    caches = CacheFolder(tmp_path, on_disk(tmp_path))
    with caches.held(ONE), caches.held(TWO):
        with pytest.raises(StorageFull, match="TUNERY_TRAINING__TOKEN_CACHE_BYTES"):
            caches.make_room(TWO, 1000)
        assert len(caches.jobs()) == 2


def test_what_a_killed_removal_has_left_is_swept(tmp_path: Path) -> None:
    caches = CacheFolder(tmp_path, 2**30)
    fill(caches, ONE, 10, 1)
    left = tmp_path / ".0123456789abcdef"
    left.mkdir()
    (left / "shard").write_bytes(b"x")
    caches.sweep()
    assert not left.exists()
    assert caches.jobs() == [ONE]
