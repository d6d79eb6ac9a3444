"""Room for adapters: the least recently used one makes it, one in use never does."""

import mmap
from pathlib import Path

import pytest
import torch

from support.networks import random_adapter, resident_bytes
from tunery.domain.errors import Overloaded, TuneryError
from tunery.engine.adapters import AdapterStack
from tunery.model.adapter_file import AdapterWeights
from tunery.model.base import load_base


@pytest.fixture(scope="module")
def weights(tiny_model: Path) -> AdapterWeights:
    return random_adapter(tiny_model, 0)


@pytest.fixture
def stack(tiny_model: Path) -> AdapterStack:
    return AdapterStack(load_base(tiny_model, torch.float32), 2, 4, 2**30)


def test_an_unknown_adapter_has_no_place(stack: AdapterStack) -> None:
    assert stack.acquire("a") is None
    assert len(stack) == 0


def test_the_least_recently_used_adapter_makes_room(
    stack: AdapterStack, weights: AdapterWeights
) -> None:
    stack.load("a", weights)
    stack.load("b", weights)
    assert stack.acquire("a") is not None
    stack.release("a")
    stack.load("c", weights)
    assert stack.acquire("b") is None
    assert {stack.acquire("a"), stack.acquire("c")} == {0, 1}
    assert (stack.loads, stack.evictions) == (3, 1)


def test_an_adapter_in_use_keeps_its_place_until_its_last_user_is_gone(
    stack: AdapterStack, weights: AdapterWeights
) -> None:
    stack.load("a", weights)
    stack.load("b", weights)
    place = stack.acquire("a")
    assert stack.acquire("a") == place
    stack.load("c", weights)  # in b's place
    assert stack.acquire("c") not in (place, None)
    for _ in range(2):
        assert not stack.unload("a")
        with pytest.raises(Overloaded):
            stack.load("d", weights)
        stack.release("a")
    stack.load("d", weights)
    assert stack.acquire("a") is None
    assert stack.acquire("d") == place


def test_an_unloaded_adapter_frees_its_place(stack: AdapterStack, weights: AdapterWeights) -> None:
    stack.load("a", weights)
    assert stack.acquire("a") is not None
    stack.release("a")
    assert stack.unload("a")
    assert stack.unload("a")
    assert len(stack) == 0
    for name in ("b", "c"):
        stack.load(name, weights)
        assert stack.acquire(name) is not None
    with pytest.raises(Overloaded):
        stack.load("a", weights)


def test_loading_a_resident_adapter_again_takes_no_second_place(
    stack: AdapterStack, weights: AdapterWeights
) -> None:
    stack.load("a", weights)
    place = stack.acquire("a")
    stack.load("a", weights)
    assert len(stack) == 1
    assert stack.acquire("a") == place


def _large_and_small(folder: Path, room_for_small: int) -> tuple[AdapterStack, AdapterWeights]:
    """Return a stack with a large adapter in it and room for some small ones beside it."""
    made = AdapterStack(load_base(folder, torch.float32), 1, 64, 2**30)
    most = made.bytes_of(64) + room_for_small * made.bytes_of(8)
    stack = AdapterStack(load_base(folder, torch.float32), 100, 64, most)
    stack.load("large", random_adapter(folder, 1, rank=64))
    return stack, random_adapter(folder, 2, rank=8)


@pytest.mark.skipif(mmap.PAGESIZE != 4096, reason="the bytes are worked out for pages of 4096")
def test_an_adapter_counts_with_the_pages_of_its_own_rank(tiny_model: Path) -> None:
    stack, small = _large_and_small(tiny_model, 1)
    # Float32, two layers of (64, 64) twice, (32, 64) twice, (96, 64) twice and (64, 96): at rank 64
    # an input or output of 64 is 4 pages, of 32 two, of 96 six; at rank 8 each is one.
    large = 2 * (2 * (4 + 4) + 2 * (2 + 4) + 3 * (6 + 4)) * 4096
    assert stack.bytes == large
    stack.load("small", small)
    assert stack.bytes == large + 2 * 7 * 2 * 4096


def test_the_longest_unused_adapters_make_room_until_there_is_enough(tiny_model: Path) -> None:
    stack, small = _large_and_small(tiny_model, 1)
    for name in ("a", "b"):  # a makes room for b: the large one is in use
        assert stack.acquire("large") is not None
        stack.load(name, small)
    assert stack.acquire("a") is None
    assert stack.acquire("b") is not None
    with pytest.raises(Overloaded):
        stack.load("c", small)
    for _ in range(2):
        stack.release("large")
    for name in "cde":  # all in the room of the large one
        stack.load(name, small)
    assert [stack.acquire(name) is not None for name in ("large", *"bcde")] == [False, *[True] * 4]


def test_adapters_that_would_not_make_enough_room_stay(tiny_model: Path) -> None:
    stack, small = _large_and_small(tiny_model, 0)
    for name in ("idle", "used"):
        stack.load(name, small)
    assert stack.acquire("used") is not None
    with pytest.raises(Overloaded):
        stack.load("large", random_adapter(tiny_model, 1, rank=64))
    assert stack.acquire("idle") is not None


def test_a_bound_that_holds_no_adapter_of_the_highest_rank_is_refused(tiny_model: Path) -> None:
    network = load_base(tiny_model, torch.float32)
    with pytest.raises(TuneryError, match=r"^Got adapter_bytes 4096; one adapter of rank 64 takes"):
        AdapterStack(network, 4, 64, 4096)


def test_adapters_take_the_memory_of_their_own_rank_and_give_it_back(tiny_model: Path) -> None:
    weights = random_adapter(tiny_model, 1, rank=8)
    before = resident_bytes()
    stack = AdapterStack(load_base(tiny_model, torch.float32), 1000, 256, 2**40)
    for number in range(200):
        stack.load(str(number), weights)
    taken = resident_bytes() - before
    # The kernel counts pages in groups, and late. Padded to rank 256 it would be some 500 MiB.
    assert stack.bytes - 2**20 < taken < stack.bytes + 16 * 2**20
    for number in range(200):
        assert stack.unload(str(number))
    assert resident_bytes() - before < taken - 0.9 * 200 * stack.bytes_of(8)
