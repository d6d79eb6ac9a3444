"""A disk that fails at any of a run's operations, for each method and over two epochs."""

from collections import Counter
from pathlib import Path

import pytest

from nightly.conftest import Figures
from support.broken_runs import assert_survived, tried_faults

# Two epochs of two steps: four snapshots, two checkpoints of two files; shard and manifest twice.
OPERATIONS = {"write": 8 + 3 + 2, "fsync": 4 * 6 + 4 * 7 + 3 * 2, "rename": 8 + 1 + 2}


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_a_run_survives_each_failure_of_its_disk(
    tiny_model: Path, migrated_sqlite: Path, tmp_path: Path, figures: Figures, method: str
) -> None:
    tried = tried_faults(tiny_model, migrated_sqlite, tmp_path, method, 2, 4)
    faults = [one for one in tried if one.end != "untouched"]
    counts = Counter(f"{one.operation}, {one.how}" for one in faults)
    same = sum(one.same and not one.unwhole for one in faults)
    figures.keep(
        f"broken-disk-{method}",
        {"byte-identical, all whole": f"{same} of {len(faults)} faults", **sorted_counts(counts)},
    )
    assert_survived(tried, OPERATIONS)


def sorted_counts(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
