"""Places for adapters: the least recently used one makes room, one in use never does."""

from pathlib import Path

import pytest
import torch

from support.networks import random_adapter
from tunery.domain.errors import Overloaded
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
