"""Losses of tokens against torch's own cross-entropy, and cases by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from tunery.training.losses import supervised_loss, token_log_probabilities


def test_a_case_by_hand() -> None:
    # Logits of the two tokens: (0, ln 3) and (ln 2, 0, swapped head): p = (1/4, 3/4), (2/3, 1/3).
    hidden = torch.tensor([[math.log(3), 0.0], [0.0, math.log(2)]], requires_grad=True)
    head = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    loss = supervised_loss(hidden, head, torch.tensor([0, 0]))
    assert float(loss.mean.detach()) == pytest.approx((math.log(4) + math.log(3 / 2)) / 2)
    assert loss.correct == 1
    loss.mean.backward()  # type: ignore[no-untyped-call]
    # (p - onehot) head / 2: (-3/4, 3/4) and (-1/3, 1/3), columns swapped by the head.
    wanted = torch.tensor([[3 / 8, -3 / 8], [1 / 6, -1 / 6]])
    torch.testing.assert_close(hidden.grad, wanted)


@pytest.mark.parametrize("count", [1, 512, 513, 1100])
def test_loss_gradient_and_accuracy_equal_those_of_torch(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 8, generator=generator)
    head = torch.randn(30, 8, generator=generator)
    targets = torch.randint(0, 30, (count,), generator=generator)
    ours, theirs = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    loss = supervised_loss(ours, head, targets)
    logits = theirs @ head.double().t()
    wanted = F.cross_entropy(logits, targets)
    (3 * loss.mean).backward()  # type: ignore[no-untyped-call]
    (3 * wanted).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss.mean.double(), wanted, rtol=1e-5, atol=1e-6)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-8)
    assert loss.correct == int((logits.argmax(-1) == targets).sum())


def test_large_logits_do_not_overflow() -> None:
    hidden = torch.tensor([[1e4]], requires_grad=True)
    loss = supervised_loss(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert float(loss.mean.detach()) == pytest.approx(2e4)
    loss.mean.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[2.0]]


def test_without_a_gradient_the_loss_is_the_same() -> None:
    hidden, head = torch.randn(5, 4), torch.randn(9, 4)
    targets = torch.tensor([0, 8, 3, 3, 1])
    with torch.no_grad():
        found = supervised_loss(hidden, head, targets)
    torch.testing.assert_close(found.mean, F.cross_entropy(hidden @ head.t(), targets))


def test_log_probabilities_by_hand() -> None:
    # As above: p = (1/4, 3/4) and (2/3, 1/3); the second token is asked for twice.
    hidden = torch.tensor([[math.log(3), 0.0], [0.0, math.log(2)], [0.0, math.log(2)]])
    hidden.requires_grad_()
    head = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    scores = token_log_probabilities(hidden, head, torch.tensor([0, 0, 1]))
    wanted = torch.log(torch.tensor([1 / 4, 2 / 3, 1 / 3]))
    torch.testing.assert_close(scores.log_probabilities, wanted)
    assert scores.correct.tolist() == [False, True, False]
    (scores.log_probabilities * torch.tensor([1.0, -3.0, 6.0])).sum().backward()  # type: ignore[no-untyped-call]
    # (onehot - p) head: (3/4, -3/4), (1/3, -1/3) and (-2/3, 2/3), swapped; times 1, -3 and 6.
    wanted = torch.tensor([[-3 / 4, 3 / 4], [1.0, -1.0], [4.0, -4.0]])
    torch.testing.assert_close(hidden.grad, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 512, 513, 1100])
def test_log_probabilities_equal_those_of_torch(count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 8, generator=generator).to(dtype)
    head = torch.randn(30, 8, generator=generator).to(dtype)
    targets = torch.randint(0, 30, (count,), generator=generator)
    weights = torch.randn(count, generator=generator)
    ours, theirs = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    found = token_log_probabilities(ours, head, targets)
    logits = theirs @ head.double().t()
    wanted = -F.cross_entropy(logits, targets, reduction="none")
    (found.log_probabilities * weights).sum().backward()  # type: ignore[no-untyped-call]
    (wanted * weights.double()).sum().backward()  # type: ignore[no-untyped-call]
    assert found.log_probabilities.dtype is torch.float32
    near = 1e-5 if dtype is torch.float32 else 0.05  # logits up to 10, of eight bits
    torch.testing.assert_close(found.log_probabilities.double(), wanted, rtol=near, atol=near)
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=10 * near, atol=2 * near)
    with torch.no_grad():
        again = token_log_probabilities(hidden, head, targets)
    assert torch.equal(again.log_probabilities, found.log_probabilities.detach())
    assert torch.equal(again.correct, found.correct)
