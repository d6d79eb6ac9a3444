"""Losses computed from hidden states of the tokens that are learned, and of those only."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from tunery.model.autograd import apply

_CHUNK = 512  # rows of logits in memory at a time: 512 x 49,152 float32 are 100 MB


class Loss(NamedTuple):
    """The mean over tokens in nats, and how many of them the model's first choice got right."""

    mean: Tensor
    correct: int


def supervised_loss(hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor) -> Loss:
    """Return the mean cross-entropy of `targets_N` under softmax(hidden head^T).

    The gradient for `hidden_NC` is made in the forward pass, chunk by chunk, so that the logits
    [N, V] never exist whole; the head is frozen and gets none.
    """
    outputs = apply(_ChunkedCrossEntropy, hidden_NC, head_VC, targets_N)
    mean, correct = cast(tuple[Tensor, Tensor], outputs)
    return Loss(mean, int(correct))


class TokenScores(NamedTuple):
    """log p of each token in nats, and whether it was the model's first choice, [N]."""

    log_probabilities: Tensor
    correct: Tensor


def token_log_probabilities(hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor) -> TokenScores:
    """Return log softmax(hidden head^T) at `targets_N`, each token's own.

    As with `supervised_loss`, the logits [N, V] never exist whole, and the head is frozen.
    """
    outputs = apply(_ChunkedLogProbabilities, hidden_NC, head_VC, targets_N)
    log_probabilities, correct = cast(tuple[Tensor, Tensor], outputs)
    return TokenScores(log_probabilities, correct)


class _ChunkedLogProbabilities(torch.autograd.Function):
    """log softmax(h W^T)[target] of each row; d/dh = (onehot - softmax) W, a row's by its own."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        count = hidden.shape[0]
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        exact = torch.promote_types(hidden.dtype, torch.float32)
        scores = torch.empty(count, dtype=exact)
        correct = torch.empty(count, dtype=torch.bool)
        for start in range(0, count, _CHUNK):
            rows = slice(start, start + _CHUNK)
            logits = (hidden[rows] @ head.t()).to(exact)
            wanted = targets[rows, None]
            correct[rows] = logits.argmax(-1) == targets[rows]
            normalizer = torch.logsumexp(logits, -1, keepdim=True)
            scores[rows] = (logits.gather(1, wanted) - normalizer)[:, 0]
            if gradient is not None:
                missing = logits.sub_(normalizer).exp_().neg_()
                missing.scatter_add_(1, wanted, torch.ones_like(normalizer))
                gradient[rows] = missing.to(head.dtype) @ head
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(correct)
        return scores, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0][:, None].to(gradient.dtype), None, None


class _ChunkedCrossEntropy(torch.autograd.Function):
    """-log softmax(h W^T)[target] averaged; d/dh = (softmax - onehot) W / N."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        count = hidden.shape[0]
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wants_gradient else None
        total = torch.zeros((), dtype=torch.float64)
        correct = torch.zeros((), dtype=torch.int64)
        for start in range(0, count, _CHUNK):
            rows = slice(start, start + _CHUNK)
            logits = (hidden[rows] @ head.t()).float()
            wanted = targets[rows, None]
            correct += (logits.argmax(-1) == targets[rows]).sum()
            normalizer = torch.logsumexp(logits, -1, keepdim=True)
            total += (normalizer - logits.gather(1, wanted)).sum().double()
            if gradient is not None:
                excess = logits.sub_(normalizer).exp_()
                excess.scatter_add_(1, wanted, torch.full_like(normalizer, -1.0))
                gradient[rows] = (excess.to(head.dtype) @ head) / count
        if gradient is not None:
            ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(correct)
        return (total / count).float(), correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None
