"""What stands between the products of a training step, forward and backward, in torch.

model/native_operations computes the same in compiled code. A run keeps to one of them from its
first step to its last: they round differently, so their bits differ.

Axes: T tokens, C hidden size, H query heads, K key/value heads, D head size, N rows, V vocabulary.
"""

from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tunery.model.autograd import apply
from tunery.model.packed import PackedLayout

Angles = tuple[Tensor, Tensor]
"""Cosine and sine of each token's angles, float32 [T, D / 2]: the halves of a head are alike."""


class Scored(NamedTuple):
    """log p of each row's target, float32 [N], and whether it is the first of the highest.

    `missing`, [N, V], is onehot - softmax: the gradient of log p for the logits.
    """

    log_probabilities: Tensor
    correct: Tensor
    missing: Tensor | None


class Operations(Protocol):
    """Residual streams are float32, what products take and give is in the base's type."""

    name: str

    def normed(self, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        """Return x / rms(x) * weight in `dtype`, [T, C] (Zhang, Sennrich 2019)."""

    def add_normed(self, x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Return x + y, and what `normed` makes of it in y's type."""

    def gated(self, made: Tensor) -> Tensor:
        """Return silu(gate) * up of [T, gate and up] (Shazeer 2020)."""

    def attended(
        self, qkv: Tensor, angles: Angles, layout: PackedLayout, key_heads: int, scale: float
    ) -> Tensor:
        """Return causal attention, [T, H D], of queries and keys turned by their angles.

        `qkv` is [T, (H + 2 K) D]; (i, i + D / 2) of a head are a pair (Su et al. 2021).
        """

    def scored(self, logits: Tensor, targets: Tensor, *, with_gradient: bool) -> Scored:
        """Return how likely logits, [N, V], make their targets; the logits may be written over."""


class TorchOperations:
    """The operations in torch."""

    name = "torch"

    def normed(self, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        """Return x / rms(x) * weight."""
        return cast(Tensor, apply(_Norm, x, weight, eps, dtype))

    def add_normed(self, x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Return x + y, and it normed."""
        total = x + y
        return total, self.normed(total, weight, eps, y.dtype)

    def gated(self, made: Tensor) -> Tensor:
        """Return silu(gate) * up."""
        return cast(Tensor, apply(_Gated, made))

    def attended(
        self, qkv: Tensor, angles: Angles, layout: PackedLayout, key_heads: int, scale: float
    ) -> Tensor:
        """Return attention."""
        size = 2 * angles[0].shape[1]
        turned = qkv.shape[1] // size - key_heads
        packed = cast(Tensor, apply(_Rotation, qkv, *angles, turned, size))
        return layout.attend_packed(packed, key_heads, size, scale)

    def scored(self, logits: Tensor, targets: Tensor, *, with_gradient: bool) -> Scored:
        """Return how likely the targets are."""
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        wanted = targets[:, None]
        correct = exact.argmax(-1) == targets
        normalizer = torch.logsumexp(exact, -1, keepdim=True)
        likely = (exact.gather(1, wanted) - normalizer)[:, 0]
        if not with_gradient:
            return Scored(likely, correct, None)
        missing = exact.sub_(normalizer).exp_().neg_()
        missing.scatter_add_(1, wanted, torch.ones_like(normalizer))
        return Scored(likely, correct, missing.to(logits.dtype))


TORCH = TorchOperations()


class _Norm(torch.autograd.Function):
    """x / rms(x) * w, in float32, rounded to the type that products take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        by: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        by.div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, by)
        normed: Tensor = (x * by).mul_(weight)
        return normed.to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        # With n = x / rms: dx = (g w - n mean(g w n)) / rms.
        x, weight, by = ctx.saved_tensors
        wanted = gradients[0].float().mul_(weight)
        n = x * by
        along = torch.linalg.vecdot(wanted, n).div_(x.shape[-1])[:, None]
        found: Tensor = n.mul_(along).sub_(wanted).mul_(-by)
        return found, None, None, None


class _Gated(torch.autograd.Function):
    """silu(gate) * up; what is between is computed again."""

    @staticmethod
    def forward(ctx: Any, made: Tensor) -> Tensor:
        ctx.save_for_backward(made)
        gate, up = made.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (made,) = ctx.saved_tensors
        (gradient,) = gradients
        gate, up = made.chunk(2, -1)
        found = torch.empty_like(made)
        grad_gate, grad_up = found.chunk(2, -1)
        torch.mul(gradient, F.silu(gate), out=grad_up)
        grad_gate.copy_(torch.ops.aten.silu_backward(gradient * up, gate))
        return found


class _Rotation(torch.autograd.Function):
    """The first `heads` heads turned by their places' angles, the others as they are.

    A gradient is turned back.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, size: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.heads, ctx.size = heads, size
        return _turned(qkv, cos, sin, heads, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, -sin, ctx.heads, ctx.size), None, None, None, None


def _turned(qkv: Tensor, cos_TH: Tensor, sin_TH: Tensor, heads: int, size: int) -> Tensor:
    cos, sin = cos_TH[:, None], sin_TH[:, None]
    made = qkv.clone()
    pairs = qkv[:, : heads * size].view(len(qkv), heads, 2, size // 2).float()
    first, second = pairs.unbind(2)
    turned = made[:, : heads * size].view(len(qkv), heads, 2, size // 2)
    turned[:, :, 0] = first * cos - second * sin
    turned[:, :, 1] = second * cos + first * sin
    return made
