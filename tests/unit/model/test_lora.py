"""LoRA linears against y = x W^T + s (x A^T) B^T written out."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunery.model.lora import AdapterRows, AdapterStacks, ServedLinear, TrainedLinear, packed


def _base(bias: bool, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(12, 20, bias=bias, dtype=dtype).requires_grad_(False)


def _matrices(rank: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, 12, generator=generator), torch.randn(20, rank, generator=generator)


@pytest.mark.parametrize("bias", [False, True])
def test_a_new_trained_linear_computes_what_its_base_does(bias: bool) -> None:
    base = _base(bias)
    layer = TrainedLinear(base, 4, 8.0, torch.Generator().manual_seed(0))
    x = torch.randn(1, 5, 12)
    assert torch.equal(layer(x), F.linear(x[0], base.weight)[None] + (base.bias if bias else 0))
    down = layer.down.detach()
    assert 0.9 * 12**-0.5 < float(down.abs().max()) <= 12**-0.5
    assert len(set(down.flatten().tolist())) == 4 * 12


def test_a_trained_linear_has_the_gradients_of_finite_differences() -> None:
    base = _base(True, torch.float64)
    layer = TrainedLinear(base, 3, 6.0, torch.Generator().manual_seed(0))
    down, up = _matrices(3, 1)
    x = torch.randn(1, 5, 12, dtype=torch.float64)

    def product(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layer, {"down": down, "up": up}, (x,))
        return y

    inputs = tuple(t.double().requires_grad_() for t in (x, down, up))
    wanted = inputs[0] @ base.weight.t() + 2.0 * inputs[0] @ inputs[1].t() @ inputs[2].t()
    torch.testing.assert_close(product(*inputs), wanted + base.bias)
    assert torch.autograd.gradcheck(product, inputs)


@pytest.mark.parametrize(
    "rows",
    [
        [-1, -1, -1, -1],
        [1, 1, 1, 1],
        [-1, 1, -1, 1],
        [2, 0, -1, 2],
        [0, 1, 2, 0],
    ],
)
def test_every_row_gets_its_own_adapter_or_none(rows: list[int]) -> None:
    base = _base(True)
    selection = AdapterRows(3, 4, torch.float32)
    stacks = AdapterStacks(12, 20, 3, 4, torch.float32)
    layer = ServedLinear(base, selection, stacks)
    adapters = [(*_matrices(rank, rank), scale) for rank, scale in ((4, 2.0), (1, 0.5), (3, 1.0))]
    for place, (down, up, scale) in enumerate(adapters):
        stacks.set(place, *_matrices(4, 99), 7.0)  # what stood there before must be gone
        stacks.set(place, down, up, scale)
    x = torch.randn(1, 4, 12)
    wanted = F.linear(x[0], base.weight, base.bias)
    for row, place in enumerate(rows):
        if place >= 0:
            down, up, scale = adapters[place]
            wanted[row] += scale * (up @ (down @ x[0, row]))
    selection.select(rows)
    torch.testing.assert_close(layer(x)[0], wanted, rtol=1e-5, atol=1e-5)


def test_mixes_of_one_step_after_another_each_use_what_stands_in_their_places() -> None:
    places, chance = 12, random.Random(5)
    base = _base(False)
    selection = AdapterRows(places, 4, torch.float32)
    stacks = AdapterStacks(12, 20, places, 4, torch.float32)
    layer = ServedLinear(base, selection, stacks)
    standing: dict[int, tuple[Tensor, Tensor]] = {}
    for step in range(200):
        place, rank = chance.randrange(places), chance.randint(1, 4)
        if step < 12 or chance.random() < 0.2:
            standing[place] = _matrices(rank, step)
            stacks.set(place, *standing[place], 1.0)
            selection.ranks[place] = rank
        elif chance.random() < 0.1 and place in standing:
            stacks.clear(place)
            del standing[place]
        few = chance.sample([-1, *standing], min(len(standing) + 1, chance.choice([2, 3, 12])))
        rows = [chance.choice(few) for _ in range(6)]
        selection.select(rows)
        x = torch.randn(1, 6, 12)
        wanted = x[0] @ base.weight.t()
        for row, own in enumerate(rows):
            if own >= 0:
                down, up = standing[own]
                wanted[row] += up @ (down @ x[0, row])
        torch.testing.assert_close(layer(x)[0], wanted, rtol=1e-4, atol=1e-4)


def test_a_cleared_place_changes_nothing() -> None:
    base = _base(False)
    selection = AdapterRows(1, 4, torch.float32)
    stacks = AdapterStacks(12, 20, 1, 4, torch.float32)
    layer = ServedLinear(base, selection, stacks)
    stacks.set(0, *_matrices(4, 0), 1.0)
    stacks.clear(0)
    selection.select([0, 0])
    x = torch.randn(1, 2, 12)
    torch.testing.assert_close(layer(x)[0], F.linear(x[0], base.weight))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_a_packed_linear_computes_the_same_product(
    bias: bool, dtype: torch.dtype, off: float
) -> None:
    base = _base(bias, dtype)
    x = torch.randn(7, 12, dtype=dtype)
    wanted = F.linear(x.double(), base.weight.double(), base.bias.double() if bias else None)
    got = packed(base.weight, base.bias)(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), wanted, rtol=off, atol=off)
