"""A disk that fails at any of a run's operations: what is read again is whole, the end the same.

The nightly run does the same with preferences, and with more than one epoch.
"""

from pathlib import Path

import pytest

from support.broken_runs import assert_survived, tried_faults

pytestmark = pytest.mark.slow


def test_a_run_survives_the_failure_of_each_write_flush_and_rename(
    tiny_model: Path, migrated_sqlite: Path, tmp_path: Path
) -> None:
    # Seven examples in batches of three: three steps, each with a snapshot, then a checkpoint.
    tried = tried_faults(tiny_model, migrated_sqlite, tmp_path, "supervised", 1, 3)
    # Blobs: three snapshots and two files of a checkpoint. In the token cache: a shard of three
    # parts, and its manifest twice. A blob is flushed with its folder and those above it: the
    # attempt's, the job's, the jobs', the project's, all blobs'; a checkpoint has one of its own.
    assert_survived(
        tried, {"write": 5 + 3 + 2, "fsync": 3 * 6 + 2 * 7 + 3 * 2, "rename": 5 + 1 + 2}
    )
    # At the latest, what was kept of the first two steps is gone on from.
    assert {one.first_step for one in tried if one.end != "untouched"} == {1, 2, 3}
