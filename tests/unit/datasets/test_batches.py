"""Which examples share a step."""

import os
import random
import subprocess
import sys
import tracemalloc
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.datasets.batches import Example, epoch_batches, micro_batches, steps_per_epoch

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
    assert list(batches) == as_lists(lengths, batch_size, seed=seed, epoch=epoch)


def as_lists(lengths: list[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Return the same as plain lists of lists, made as they have been from the first version on.

    A run that was interrupted goes on with this order, whatever version takes it up.
    """
    generator = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    generator.shuffle(order)
    pool = batch_size * 16
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        members = sorted(order[start : start + pool], key=lambda index: lengths[index])
        batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    generator.shuffle(batches)
    return batches


def test_a_batch_is_found_by_its_place() -> None:
    batches = epoch_batches([1] * 10, 3, seed=1, epoch=0)
    whole = list(batches)
    assert batches[-1] == whole[3]
    assert batches[1:3] == whole[1:3]
    with pytest.raises(IndexError):
        batches[4]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_batches_of_many_lines_take_a_few_bytes_a_line(batch_size: int) -> None:
    lines = 100_000
    lengths = array("I", [7]) * lines
    tracemalloc.start()
    batches = epoch_batches(lengths, batch_size, seed=1, epoch=0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Four bytes an example and four a batch; making the array may take half as much again.
    assert len(batches) == lines // batch_size
    assert most < 1.5 * 8 * lines + 2**16


def test_seed_and_epoch_each_change_the_order() -> None:
    lengths = [5] * 64
    orders = {
        str(list(epoch_batches(lengths, 4, seed=seed, epoch=epoch)))
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
    assert list(batches) != sorted(batches)


def test_another_process_makes_the_same_batches() -> None:
    code = (
        "from tunery.datasets.batches import epoch_batches;"
        "print(list(epoch_batches([n * 7 % 31 for n in range(100)], 3, seed=42, epoch=2)))"
    )
    expected = str(list(epoch_batches([n * 7 % 31 for n in range(100)], 3, seed=42, epoch=2)))
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


def test_a_batch_is_cut_into_parts_of_so_many_tokens_and_a_longer_example_stands_alone() -> None:
    batch = ["a" * size for size in (3, 3, 4, 1, 12, 5, 6)]
    parts = [[len(one) for one in part] for part in micro_batches(batch, 10, len)]
    assert parts == [[3, 3, 4], [1], [12], [5], [6]]
    assert list(micro_batches([], 10, len)) == []
