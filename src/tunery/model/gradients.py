"""Parts of attention over packed texts with gradients of our own."""

from typing import Any, cast

import torch
from torch import Tensor

from tunery.model.autograd import apply


def gathered(rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Return rows by index, where each is wanted at most once among those that carry gradient.

    `inverse` gives, for each source row, the place in the output whose gradient it takes; an
    index behind the last row takes none.
    """
    return cast(Tensor, apply(_Gather, rows, index, inverse))


def grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Return softmax(q k^T * scale + mask) v as batched products, G query heads in the rows.

    Keeps the probabilities for the backward pass (Vaswani et al. 2017, eq. 1; grouped queries:
    Ainslie et al. 2023). Shapes: q [N, G*L, D], k and v [N, L, D], mask [G*L, L].
    """
    return cast(Tensor, apply(_GroupedAttention, query, key, value, mask, scale))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        (gradient,) = gradients
        gradient = torch.cat([gradient, gradient.new_zeros(1, gradient.shape[1])])
        return gradient.index_select(0, inverse), None, None


class _GroupedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
    ) -> Tensor:
        scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
        probabilities = torch.softmax(scores, -1)
        ctx.save_for_backward(query, key, value, probabilities)
        ctx.scale = scale
        return torch.bmm(probabilities, value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, probabilities = ctx.saved_tensors
        (gradient,) = gradients
        grad_value = torch.bmm(probabilities.transpose(1, 2), gradient)
        grad_probabilities = torch.bmm(gradient, value.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(
            grad_probabilities, probabilities, -1, probabilities.dtype
        ).mul_(ctx.scale)
        grad_query = torch.bmm(grad_scores, key)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), query)
        return grad_query, grad_key, grad_value, None, None
