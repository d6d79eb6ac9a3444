"""How likely the learned tokens are, from their hidden states: of those tokens only."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from tunery.model.autograd import apply
from tunery.model.operations import TORCH, Operations

_CHUNK = 512  # rows of logits in memory at a time: 512 x 49,152 float32 are 100 MB


class Loss(NamedTuple):
    """The mean over tokens in nats, and how many of them the model's first choice got right."""

    mean: Tensor
    correct: int


class TokenScores(NamedTuple):
    """log p of each token in nats, and whether it was the model's first choice, [N]."""

    log_probabilities: Tensor
    correct: Tensor


def supervised_loss(
    hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor, operations: Operations = TORCH
) -> Loss:
    """Return the mean cross-entropy of `targets_N` under softmax(hidden head^T)."""
    scores = token_log_probabilities(hidden_NC, head_VC, targets_N, operations)
    mean = -scores.log_probabilities.double().mean()
    return Loss(mean.float(), int(scores.correct.sum()))


def token_log_probabilities(
    hidden_NC: Tensor, head_VC: Tensor, targets_N: Tensor, operations: Operations = TORCH
) -> TokenScores:
    """Return log softmax(hidden head^T) at `targets_N`, each token's own.

    The gradient for `hidden_NC` is made in the forward pass, chunk by chunk, so that the logits
    [N, V] never exist whole; the head is frozen and gets none.
    """
    outputs = apply(_ChunkedLogProbabilities, hidden_NC, head_VC, targets_N, operations)
    log_probabilities, correct = cast(tuple[Tensor, Tensor], outputs)
    return TokenScores(log_probabilities, correct)


class _ChunkedLogProbabilities(torch.autograd.Function):
    """log softmax(h W^T)[target] of each row; d/dh = (onehot - softmax) W, a row's by its own."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, operations: Operations
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        likely, correct = list[Tensor](), list[Tensor]()
        for start in range(0, hidden.shape[0], _CHUNK):
            rows = slice(start, start + _CHUNK)
            scored = operations.scored(
                hidden[rows] @ head.t(), targets[rows], with_gradient=gradient is not None
            )
            likely.append(scored.log_probabilities)
            correct.append(scored.correct)
            if gradient is not None and scored.missing is not None:
                gradient[rows] = scored.missing @ head
        if gradient is not None:
            ctx.save_for_backward(gradient)
        right = torch.cat(correct)
        ctx.mark_non_differentiable(right)
        return torch.cat(likely), right

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        weighed: Tensor = gradient * gradients[0][:, None]  # in float32, and rounded once
        return weighed.to(gradient.dtype), None, None, None
