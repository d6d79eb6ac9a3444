"""Which examples share a step."""

import os
import subprocess
import sys

from hypothesis import example, given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.datasets.batches import Example, epoch_batches, steps_per_epoch

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=300)


@untimed
@given(LENGTHS, st.integers(1, 20), st.integers(0, 2**31 - 1), st.integers(1, 25))
def test_an_epoch_takes_every_example_once_in_full_batches_but_one(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, batch_size, seed=seed, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    full, rest = divmod(len(lengths), batch_size)
    expected = [rest] * bool(rest) + [batch_size] * full
    assert sorted(map(len, batches)) == sorted(expected)
    assert len(batches) == steps_per_epoch(len(lengths), batch_size)
    assert batches == epoch_batches(lengths, batch_size, seed=seed, epoch=epoch)


def test_seed_and_epoch_each_change_the_order() -> None:
    lengths = [5] * 64
    orders = {
        str(epoch_batches(lengths, 4, seed=seed, epoch=epoch))
        for seed in range(5)
        for epoch in range(1, 5)
    }
    assert len(orders) == 20


@untimed
@given(st.integers(1, 64).flatmap(lambda n: st.permutations(range(1, n + 1))))
@example(list(range(64, 0, -1)))
def test_within_a_pool_each_batch_holds_neighbours_in_length(lengths: list[int]) -> None:
    # 64 examples in batches of 4 are one pool of 16 batches.
    batches = epoch_batches(lengths, 4, seed=3, epoch=1)
    ranked = sorted(lengths)
    neighbours = [ranked[i : i + 4] for i in range(0, len(ranked), 4)]
    assert sorted([lengths[i] for i in batch] for batch in batches) == neighbours


def test_batches_do_not_come_from_short_to_long() -> None:
    batches = epoch_batches(list(range(1, 65)), 4, seed=1, epoch=1)
    assert batches != sorted(batches)


def test_another_process_makes_the_same_batches() -> None:
    code = (
        "from tunery.datasets.batches import epoch_batches;"
        "print(epoch_batches([n * 7 % 31 for n in range(100)], 3, seed=42, epoch=2))"
    )
    expected = str(epoch_batches([n * 7 % 31 for n in range(100)], 3, seed=42, epoch=2))
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_the_first_token_is_not_counted_as_learned() -> None:
    assert Example([7, 8, 9], [True, False, True]).learned == 1
    assert Example([7, 8, 9], [False, True, True]).learned == 2
