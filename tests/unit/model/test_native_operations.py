"""Training's native operations against the same mathematics in float64."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from support.native import FOLDER, needs
from tunery.model import native
from tunery.model.native_operations import NativeOperations
from tunery.model.operations import TORCH, Operations
from tunery.model.packed import PackedLayout
from tunery.training.losses import token_log_probabilities

# A result is rounded to bfloat16 once, by 2^-9 of it at most; a gradient after sums of such.
ROUNDED, SUMMED = 2**-8, 2**-6
K, G, D = 2, 3, 32  # key/value heads, queries for each, head size
H = K * G


@pytest.fixture(scope="module")
def operations() -> NativeOperations:
    needs(native.TRAINING)
    path = native.built(FOLDER, native.TRAINING)
    assert path is not None
    return NativeOperations(path)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def _assert_near(found: Tensor, wanted: Tensor, within: float) -> None:
    found, wanted = found.detach(), wanted.detach()
    size = float(wanted.abs().max())
    assert size > 0
    torch.testing.assert_close(found.double(), wanted, rtol=within, atol=within * size)


def _check(
    ours: Callable[..., Any],
    exact: Callable[..., Any],
    inputs: list[Tensor],
    learned: int,
    within: float = ROUNDED,
) -> None:
    """Hold outputs, and the gradients of the first `learned` inputs, to float64's."""
    here = [one.clone().requires_grad_(i < learned) for i, one in enumerate(inputs)]
    there = [one.double().requires_grad_(i < learned) for i, one in enumerate(inputs)]
    found, wanted = ours(*here), exact(*there)
    found = found if isinstance(found, tuple) else (found,)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    weights = [_random(*one.shape, seed=9 + i) for i, one in enumerate(found)]
    pairs = zip(found, weights, strict=True)
    torch.autograd.backward([(one.float() * by).sum() for one, by in pairs])
    pairs = zip(wanted, weights, strict=True)
    torch.autograd.backward([(one * by.double()).sum() for one, by in pairs])
    for one, other in zip(found, wanted, strict=True):
        _assert_near(one, other, within)
    for one, other in zip(here[:learned], there[:learned], strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert one.grad.dtype == one.dtype
        _assert_near(one.grad, other.grad, SUMMED)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def test_norm_and_sum(operations: NativeOperations, threads: int) -> None:
    del threads
    x, y = _random(37, 48, dtype=torch.float32), _random(37, 48, seed=1)
    weight = _random(48, seed=2, dtype=torch.float32)
    _check(
        lambda x, w: operations.normed(x, w, 1e-5, torch.bfloat16),
        _normed,
        [x, weight],
        1,
    )
    _check(
        lambda x, y, w: operations.add_normed(x, y, w, 1e-5),
        lambda x, y, w: (x + y, _normed(x + y, w)),
        [x, y, weight],
        2,
    )


def test_gate(operations: NativeOperations, threads: int) -> None:
    del threads
    made = _random(37, 96)
    made[0, :2] = torch.tensor([60.0, -60.0])  # e^60 and e^-60 times something
    _check(
        operations.gated,
        lambda made: torch.nn.functional.silu(made[:, :48]) * made[:, 48:],
        [made],
        1,
    )


def _attended(qkv: Tensor, lengths: list[int], shared: int, cos: Tensor, sin: Tensor) -> Tensor:
    """Return each token's attention, computed sequence by sequence and head by head."""
    turns = torch.complex(cos.double(), sin.double())
    start, rows = shared, [torch.empty(0)] * len(qkv)
    for length in lengths:
        mine = [*range(shared), *range(start, start + length - shared)]
        start += length - shared
        own = qkv[mine].view(length, H + 2 * K, D)
        pairs = torch.complex(own[..., : D // 2], own[..., D // 2 :]) * turns[mine][:, None]
        turned = torch.cat([pairs.real, pairs.imag], -1)
        heads = []
        for head in range(H):
            key = turned[:, H + head // G]
            scores = turned[:, head] @ key.t() / math.sqrt(D)
            later = torch.ones(length, length).triu(1).bool()
            heads.append(
                scores.masked_fill(later, -math.inf).softmax(-1) @ own[:, H + K + head // G]
            )
        for place, row in zip(mine, torch.stack(heads, 1).flatten(1), strict=True):
            rows[place] = row
    return torch.stack([row if len(row) else torch.zeros(H * D).double() for row in rows])


@pytest.mark.parametrize(
    ("lengths", "shared"), [([9], 0), ([21, 17, 5], 0), ([40, 33, 36], 20), ([18, 18], 17)]
)
def test_attention(
    operations: NativeOperations, threads: int, lengths: list[int], shared: int
) -> None:
    del threads
    layout = PackedLayout(lengths, torch.bfloat16, shared)
    tokens = shared + sum(length - shared for length in lengths) + layout.padding
    angles = layout.positions[:, None] * 0.3 ** torch.arange(D // 2)
    cos, sin = angles.cos(), angles.sin()
    _check(
        lambda qkv: operations.attended(qkv, (cos, sin), layout, K, 1 / math.sqrt(D)),
        lambda qkv: _attended(qkv, lengths, shared, cos, sin),
        [_random(tokens, (H + 2 * K) * D)],
        1,
        SUMMED,  # what is turned, scores and probabilities are rounded on the way
    )


@pytest.mark.parametrize("vocabulary", [64, 71])
def test_scores(operations: NativeOperations, threads: int, vocabulary: int) -> None:
    del threads
    hidden, head = _random(600, 16), _random(vocabulary, 16, seed=1)
    targets = torch.randint(0, vocabulary, (600,), generator=torch.Generator().manual_seed(2))
    exact = torch.log_softmax((hidden @ head.t()).double(), -1).gather(1, targets[:, None])[:, 0]
    scores = token_log_probabilities(hidden, head, targets, operations)
    _assert_near(scores.log_probabilities, exact, 1e-6)
    _check(
        lambda hidden: token_log_probabilities(hidden, head, targets, operations).log_probabilities,
        lambda hidden: torch.log_softmax(hidden @ head.double().t(), -1).gather(
            1, targets[:, None]
        )[:, 0],
        [hidden],
        1,
    )


def test_the_first_of_the_highest_is_the_choice(operations: NativeOperations) -> None:
    logits = torch.zeros(3, 40, dtype=torch.bfloat16)
    logits[:, 7] = logits[:, 30] = 2.0
    targets = torch.tensor([7, 30, 8])
    for one in (operations, TORCH):
        scored = one.scored(logits.clone(), targets, with_gradient=False)
        assert scored.correct.tolist() == [True, False, False]
        # 38 of 1 and two of e^2
        normalizer = math.log(38 + 2 * math.exp(2))
        wanted = torch.tensor([2 - normalizer, 2 - normalizer, -normalizer])
        torch.testing.assert_close(scored.log_probabilities, wanted)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_none_stays_none(operations: NativeOperations, bad: float) -> None:
    logits = _random(2, 40)
    logits[1, 3] = bad
    targets = torch.tensor([5, 5])
    found = operations.scored(logits, targets, with_gradient=True).log_probabilities
    assert found.isfinite().tolist() == [True, False]
    for made in (
        operations.gated(torch.full((1, 32), bad, dtype=torch.bfloat16)),
        operations.normed(torch.full((1, 16), bad), torch.ones(16), 1e-5, torch.bfloat16),
    ):
        assert not made.isfinite().any()


def _step(operations: Operations) -> list[Tensor]:
    """Return what a few operations make, forward and backward."""
    layout = PackedLayout([70, 64, 66], torch.bfloat16, 40)
    tokens = 40 + 30 + 24 + 26 + layout.padding
    cos, sin = torch.ones(tokens, D // 2), torch.zeros(tokens, D // 2)
    qkv = _random(tokens, (H + 2 * K) * D).requires_grad_()
    x = operations.attended(qkv, (cos, sin), layout, K, 0.2)
    weight = _random(H * D, dtype=torch.float32)
    total, h = operations.add_normed(x.float(), x, weight, 1e-5)
    made = operations.gated(h)
    (made.float().square().sum() + total.sum()).backward()  # type: ignore[no-untyped-call]
    assert qkv.grad is not None
    return [x.detach(), h.detach(), made.detach(), qkv.grad]


def test_bits_do_not_depend_on_the_number_of_threads(operations: NativeOperations) -> None:
    found = []
    before = torch.get_num_threads()
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        found.append(_step(operations))
    torch.set_num_threads(before)
    for others in found[1:]:
        assert all(map(torch.equal, found[0], others))


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.so"
    path.write_bytes(b"\x7fELF and no more")
    with pytest.raises(native.NotBuilt, match=r"broken\.so cannot be loaded"):
        NativeOperations(path)
