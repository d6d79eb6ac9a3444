"""The operations of model/operations.py in compiled code (model/native/training.cpp).

In torch, each is a chain of passes over memory with a rounding after each; here it is one pass, in
float32 from what it reads to what it writes. Attention keeps torch's batched products. The bits
depend on no number of threads.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tunery.model.autograd import apply
from tunery.model.native import NotBuilt
from tunery.model.operations import TORCH, Angles, Scored
from tunery.model.packed import PackedLayout

_WIDTH, _HEAD_WIDTH = 16, 32  # sizes are whole numbers of these


class NativeOperations:
    """The operations of a compiled file, for a base in bfloat16 on the CPU."""

    name = "native"

    def __init__(self, path: Path) -> None:
        """Load the file; raise NotBuilt where it does not fit this process."""
        try:
            self._calls = _Calls(ctypes.CDLL(str(path)))
        except OSError as error:
            raise NotBuilt(f"{path} cannot be loaded: {error}") from None

    def normed(self, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        """Return x / rms(x) * weight."""
        del dtype  # bfloat16
        return cast(Tensor, apply(_Norm, x, None, weight, eps, self._calls)[1])

    def add_normed(self, x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Return x + y, and it normed."""
        return cast(tuple[Tensor, Tensor], apply(_Norm, x, y, weight, eps, self._calls))

    def gated(self, made: Tensor) -> Tensor:
        """Return silu(gate) * up."""
        return cast(Tensor, apply(_Gated, made, self._calls))

    def attended(
        self, qkv: Tensor, angles: Angles, layout: PackedLayout, key_heads: int, scale: float
    ) -> Tensor:
        """Return attention; of long sequences as torch streams it."""
        if layout.is_long:
            return TORCH.attended(qkv, angles, layout, key_heads, scale)
        return cast(Tensor, apply(_Attention, qkv, *angles, layout, key_heads, scale, self._calls))

    def scored(self, logits: Tensor, targets: Tensor, *, with_gradient: bool) -> Scored:
        """Return how likely the targets are."""
        N, V = logits.shape
        likely = torch.empty(N)
        correct = torch.empty(N, dtype=torch.bool)
        self._calls("log_probabilities", (N, V, with_gradient), targets, logits, likely, correct)
        return Scored(likely, correct, logits if with_gradient else None)


def fits(config: Any, dtype: torch.dtype) -> bool:
    """Return whether a base of this configuration has sizes that the operations take."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    widths = (config.hidden_size, config.intermediate_size)
    whole = size % _HEAD_WIDTH == 0 and not any(width % _WIDTH for width in widths)
    return dtype == torch.bfloat16 and whole


class _Calls:
    """The file's functions: first a number of threads, then sizes, then tensors and numbers."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def __call__(self, name: str, sizes: Sequence[int], *rest: Tensor | float | None) -> None:
        values: list[Any] = [ctypes.c_int(torch.get_num_threads())]
        values += [ctypes.c_bool(n) if isinstance(n, bool) else ctypes.c_int64(n) for n in sizes]
        for value in rest:
            if isinstance(value, float):
                values.append(ctypes.c_float(value))
            else:
                values.append(ctypes.c_void_p(None if value is None else _address(value)))
        getattr(self._library, name)(*values)


def _address(tensor: Tensor) -> int:
    if not tensor.is_contiguous():
        raise ValueError(f"a tensor of {tuple(tensor.shape)} is not contiguous")
    return tensor.data_ptr()


class _Norm(torch.autograd.Function):
    """x + y, or x without y, and that over its root mean square times a weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor | None, weight: Tensor, eps: float, call: _Calls
    ) -> tuple[Tensor, Tensor]:
        T, C = x.shape
        total = x if y is None else torch.empty_like(x)
        normed = torch.empty(T, C, dtype=torch.bfloat16)
        by = torch.empty(T)
        call("add_norm", (T, C), x, y, weight, eps, total, normed, by)
        ctx.save_for_backward(total, weight, by)
        ctx.call, ctx.alone = call, y is None
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight, by = ctx.saved_tensors
        passed, wanted = gradients
        if wanted is None:
            rounded = None if passed is None or ctx.alone else passed.to(torch.bfloat16)
            return passed, rounded, None, None, None
        found = torch.empty_like(total)
        rounded = (
            None if ctx.alone else torch.empty_like(wanted, memory_format=torch.contiguous_format)
        )
        if passed is not None:
            passed = passed.contiguous()
        ctx.call(
            "add_norm_backward",
            total.shape,
            *(wanted, passed, total, weight, by, found, rounded),
        )
        return found, rounded, None, None, None


class _Gated(torch.autograd.Function):
    """silu(gate) * up; what is between is computed again."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, call: _Calls) -> Tensor:
        ctx.save_for_backward(made)
        ctx.call = call
        T, both = made.shape
        out = made.new_empty(T, both // 2)
        call("gated", (T, both // 2), made, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (made,) = ctx.saved_tensors
        found = torch.empty_like(made)
        T, both = made.shape
        ctx.call("gated_backward", (T, both // 2), gradients[0].contiguous(), made, found)
        return found, None


class _Attention(torch.autograd.Function):
    """Rotation, softmax(scale q k^T) v for each sequence and for what all begin with.

    Keeps the probabilities for the backward pass (Vaswani et al. 2017, eq. 1; grouped queries:
    Ainslie et al. 2023).
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        layout: PackedLayout,
        key_heads: int,
        scale: float,
        call: _Calls,
    ) -> Tensor:
        T, D = qkv.shape[0], 2 * cos.shape[1]
        K = key_heads
        H = qkv.shape[1] // D - 2 * K
        B, L, P = layout.sequences, layout.longest, layout.shared

        def attend(sizes: tuple[int, int, int], spans: Tensor) -> tuple[Tensor, list[Tensor]]:
            b, length, before = sizes
            query = qkv.new_empty(b * K, H // K * length, D)
            key = qkv.new_empty(b * K, before + length, D)
            value = torch.empty_like(key)
            call("arrange", (*sizes, H, K, D), *spans, qkv, cos, sin, query, key, value)
            scores = torch.bmm(query, key.transpose(1, 2))
            call("causal_softmax", (b * H, length, before), scale, scores)
            return torch.bmm(scores, value), [query, key, value, scores]

        out, kept = attend((B, L, P), layout.spans)
        first = None
        if P:
            first, kept_first = attend((1, P, 0), layout.shared_span)
            kept += kept_first
        row = qkv.new_empty(T, H * D)
        call("collect", (T, B, L, P, H, D), *layout.places, out, first, row)
        ctx.save_for_backward(cos, sin, *kept)
        ctx.sizes, ctx.layout, ctx.scale, ctx.call = (T, B, L, P, H, K, D), layout, scale, call
        return row

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin, *kept = ctx.saved_tensors
        T, B, L, P, H, K, D = ctx.sizes
        gradient = gradients[0].contiguous()

        def back(
            sizes: tuple[int, int, int], spans: Tensor, kept: Sequence[Tensor]
        ) -> list[Tensor | None]:
            b, length, before = sizes
            query, key, value, probabilities = kept
            wanted = torch.empty_like(query)
            ctx.call("distribute", (b, length, H, D), *spans, gradient, wanted)
            grad_value = torch.bmm(probabilities.transpose(1, 2), wanted)
            grad_scores = torch.bmm(wanted, value.transpose(1, 2))
            ctx.call(
                "causal_softmax_backward",
                (b * H, length, before),
                *(ctx.scale, probabilities, grad_scores),
            )
            grad_query = torch.bmm(grad_scores, key)
            return [grad_query, torch.bmm(grad_scores.transpose(1, 2), query), grad_value]

        found = back((B, L, P), ctx.layout.spans, kept[:4])
        none: list[Tensor | None] = [None] * 3
        first = back((1, P, 0), ctx.layout.shared_span, kept[4:]) if P else none
        row = torch.empty(T, (H + 2 * K) * D, dtype=gradient.dtype)
        ctx.call("arrange_backward", ctx.sizes, *ctx.layout.places, cos, sin, *found, *first, row)
        return row, None, None, None, None, None, None
