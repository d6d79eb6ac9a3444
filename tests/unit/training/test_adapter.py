"""The adapter being learned: its start, its steps, its state."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.networks import random_adapter, tokens
from tunery.datasets.batches import Example
from tunery.model.base import BaseNetwork, load_base
from tunery.training.adapter import LearnedAdapter
from tunery.training.sft import batch_loss

EXAMPLE = Example(tokens(16, 0), [True] * 16)


def _learned(folder: Path, seed: int = 0) -> tuple[BaseNetwork, LearnedAdapter]:
    network = load_base(folder, torch.float32)
    return network, LearnedAdapter.over(network, seed=seed, start_from=None)


def _step(network: BaseNetwork, learned: LearnedAdapter, rate: float) -> float:
    loss = batch_loss(network, [EXAMPLE])
    assert loss is not None
    loss.mean.backward()  # type: ignore[no-untyped-call]
    return learned.step(rate)


def _copies(learned: LearnedAdapter) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learned.parameters()]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_a_seed_gives_its_own_start(tiny_model: Path) -> None:
    first, again, other = (_copies(_learned(tiny_model, seed)[1]) for seed in (1, 1, 2))
    assert _same(first, again)
    assert not any(map(torch.equal, first[::2], other[::2]))
    assert all(not up.any() for up in first[1::2])


def test_a_given_adapter_is_where_learning_begins(tiny_model: Path) -> None:
    weights = random_adapter(tiny_model, 1, rank=3, alpha=5.0)
    name = next(iter(weights.layers))
    only = type(weights)(3, 5.0, {name: weights.layers[name]})
    network = load_base(tiny_model, torch.float32)
    found = LearnedAdapter.over(network, seed=0, start_from=only).weights()
    assert (found.rank, found.alpha) == (3, 5.0)
    assert _same(list(found.layers[name]), list(weights.layers[name]))
    assert all(not up.any() for other, (_, up) in found.layers.items() if other != name)


def test_a_first_step_is_that_of_adam_on_the_clipped_gradient(tiny_model: Path) -> None:
    network, learned = _learned(tiny_model)
    before = _copies(learned)
    loss = batch_loss(network, [EXAMPLE])
    assert loss is not None
    (100 * loss.mean).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in learned.parameters() if p.grad is not None]
    norm = float(sum((g.double() ** 2).sum() for g in gradients)) ** 0.5
    assert norm > 1
    assert learned.step(1e-2) == pytest.approx(norm, rel=1e-4)
    for start, gradient, now in zip(before, gradients, learned.parameters(), strict=True):
        # The moments' corrections cancel in the first step: it is rate * g / (|g| + epsilon).
        clipped = gradient / norm
        wanted = start - 1e-2 * clipped / (clipped.abs() + 1e-8)
        torch.testing.assert_close(now.detach(), wanted, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in learned.parameters())


def test_a_gradient_that_is_not_finite_leaves_the_weights(tiny_model: Path) -> None:
    network, learned = _learned(tiny_model)
    _step(network, learned, 1e-2)
    before = _copies(learned)
    loss = batch_loss(network, [EXAMPLE])
    assert loss is not None
    (loss.mean * float("inf")).backward()  # type: ignore[no-untyped-call]
    assert not torch.tensor(learned.step(1e-2)).isfinite()
    assert _same(_copies(learned), before)


def test_a_restored_state_goes_on_as_if_nothing_had_been(tiny_model: Path) -> None:
    network, learned = _learned(tiny_model)
    fresh = learned.state("torch-float32")
    for rate in (1e-2, 5e-3):
        _step(network, learned, rate)
    state, here = learned.state("torch-float32"), _copies(learned)
    _step(network, learned, 3e-3)
    other_network, other = _learned(tiny_model, seed=9)
    other.restore(state)
    assert _same(_copies(other), here)
    _step(other_network, other, 3e-3)
    assert _same(_copies(other), _copies(learned))
    other.restore(fresh)  # before any step there are no moments
    assert not _same(_copies(other), here)
