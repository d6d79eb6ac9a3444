"""A Llama-like decoder for training: the same function as transformers', in fewer operations.

Query, key and value are one product, gate and up another, each with the adapters of its parts; the
frozen base gets no gradient. The residual stream stays in float32. Knows the families that serving
knows (model/fused); any other base is trained module by module.

Axes: T tokens, C hidden size, H query heads, K key/value heads, D head size, r rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunery.model.attention import PackedLayout
from tunery.model.autograd import apply
from tunery.model.fused import ATTENTION, GATES
from tunery.model.lora import TrainedLinear, lora_product

KEPT_TOKENS = 4096
"""Of more tokens in a row, a layer's results are computed again in the backward pass.

Kept they take some 0.7 MB a token of the default base; computed again, a tenth of that.
"""


class TrainedDecoder:
    """The decoder of a Llama-like base, with the linears that are learned."""

    def __init__(self, decoder: Any, layers: Mapping[str, TrainedLinear]) -> None:
        config = decoder.config
        self._embedding: Tensor = decoder.embed_tokens.weight.detach()
        self._eps: float = config.rms_norm_eps
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._size: int = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        self._scale: float = decoder.layers[0].self_attn.scaling
        self._layers = [
            _Layer.of(module, layers, f"layers.{number}.")
            for number, module in enumerate(decoder.layers)
        ]
        self._norm: Tensor = decoder.norm.weight.detach().float()
        self._rotations: Any = decoder.rotary_emb

    def hidden(self, token_ids_T: Tensor, layout: PackedLayout) -> Tensor:
        """Return the last hidden states, [T, C], in the base's type."""
        x = F.embedding(token_ids_T, self._embedding).float()
        angles = self._angles(x, layout.positions)
        again = torch.is_grad_enabled() and len(x) > KEPT_TOKENS
        for layer in self._layers:
            if again:
                x = checkpoint(self._through, layer, x, angles, layout, use_reentrant=False)
            else:
                x = self._through(layer, x, angles, layout)
        return self._normed(x, self._norm)

    def _through(
        self, layer: "_Layer", x: Tensor, angles: tuple[Tensor, Tensor], layout: PackedLayout
    ) -> Tensor:
        """Return the residual stream after a layer."""
        qkv = layer.qkv(self._normed(x, layer.attention_norm))
        heads = self._heads + self._key_heads  # that are turned
        turned = cast(Tensor, apply(_Rotation, qkv, *angles, heads, self._size))
        x = x + layer.out(layout.attend_packed(turned, self._key_heads, self._size, self._scale))
        made = layer.gates(self._normed(x, layer.mlp_norm))
        return x + layer.down(cast(Tensor, apply(_Gated, made)))

    def _angles(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of each position's angles, [T, 1, D / 2]: halves are alike."""
        cos, sin = self._rotations(x, positions[None])
        half = self._size // 2
        return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return cast(Tensor, apply(_Norm, x, weight, self._eps, self._embedding.dtype))


@dataclass(frozen=True, slots=True)
class _Product:
    """Linears over one input as one product."""

    weight: Tensor
    bias: Tensor | None
    parts: Sequence[TrainedLinear]

    @classmethod
    def of(cls, parts: Sequence[TrainedLinear]) -> "_Product":
        biases = [part.bias for part in parts if part.bias is not None]
        weight = torch.cat([part.weight.detach() for part in parts])
        first = 0
        for part in parts:  # the weights are there once
            part.weight = weight[first : first + len(part.weight)]
            first += len(part.weight)
        return cls(weight, torch.cat(biases).detach() if biases else None, parts)

    def __call__(self, x: Tensor) -> Tensor:
        dtype = self.weight.dtype
        down = torch.cat([part.down for part in self.parts]).to(dtype)
        ups = [(part.up * part.scale).to(dtype) for part in self.parts]
        # Each part's own rows and its own rank's columns: the rest of the matrix is zero.
        up: Tensor = ups[0]
        if len(ups) > 1:
            up = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
        y = lora_product(x, self.weight, down, up)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: _Product
    out: _Product
    mlp_norm: Tensor
    gates: _Product
    down: _Product

    @classmethod
    def of(cls, module: nn.Module, layers: Mapping[str, TrainedLinear], prefix: str) -> "_Layer":
        def product(part: str, names: Sequence[str]) -> _Product:
            return _Product.of([layers[f"{prefix}{part}.{name}"] for name in names])

        norms: Any = module
        return cls(
            attention_norm=norms.input_layernorm.weight.detach().float(),
            qkv=product("self_attn", ATTENTION),
            out=product("self_attn", ("o_proj",)),
            mlp_norm=norms.post_attention_layernorm.weight.detach().float(),
            gates=product("mlp", GATES),
            down=product("mlp", ("down_proj",)),
        )


class _Norm(torch.autograd.Function):
    """x / rms(x) * w, in float32, rounded to the type that products take (Zhang, Sennrich 2019)."""

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
    """silu(gate) * up of [T, gate and up] (Shazeer 2020); what is between is computed again."""

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
    """Queries and keys turned by their positions' angles (Su et al. 2021); values as they are.

    A gradient is turned back. qkv is [T, (H + 2 K) D]; (i, i + D/2) of a head are one pair.
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


def _turned(qkv: Tensor, cos: Tensor, sin: Tensor, heads: int, size: int) -> Tensor:
    made = qkv.clone()
    pairs = qkv[:, : heads * size].view(len(qkv), heads, 2, size // 2).float()
    first, second = pairs.unbind(2)
    turned = made[:, : heads * size].view(len(qkv), heads, 2, size // 2)
    turned[:, :, 0] = first * cos - second * sin
    turned[:, :, 1] = second * cos + first * sin
    return made
