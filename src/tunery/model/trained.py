"""A Llama-like decoder for training: the same function as transformers', in fewer operations.

Query, key and value are one product, gate and up another, each with the adapters of its parts; the
frozen base gets no gradient. The residual stream stays in float32. Knows the families that serving
knows (model/fused); any other base is trained module by module.

Axes: T tokens, C hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunery.model.autograd import apply
from tunery.model.device import free_bytes
from tunery.model.fused import ATTENTION, GATES
from tunery.model.lora import TrainedLinear
from tunery.model.operations import Angles, Operations
from tunery.model.packed import PackedLayout

KEPT_TOKENS = 4096
"""Of more tokens in a row, a layer's results are computed again in the backward pass.

Kept they take some 0.8 MB a token of the default base; computed again, a tenth of that. The
numbers are the same to the bit, so that memory may decide as well.
"""
_KEPT_SHARE = 0.5  # of the free memory, that results may take: other processes take of it as well


class TrainedDecoder:
    """The decoder of a Llama-like base, with the linears that are learned."""

    def __init__(
        self, decoder: Any, layers: Mapping[str, TrainedLinear], operations: Operations
    ) -> None:
        config = decoder.config
        self._operations = operations
        self._embedding: Tensor = decoder.embed_tokens.weight.detach()
        self._eps: float = config.rms_norm_eps
        self._key_heads: int = config.num_key_value_heads
        self._scale: float = decoder.layers[0].self_attn.scaling
        self._layers = [
            _Layer.of(module, layers, f"layers.{number}.")
            for number, module in enumerate(decoder.layers)
        ]
        self._norm: Tensor = decoder.norm.weight.detach().float()
        self._rotations: Any = decoder.rotary_emb
        self.token_bytes = sum(layer.token_bytes for layer in self._layers)
        """About what is kept of a token for the backward pass."""

    def hidden(
        self, token_ids_T: Tensor, layout: PackedLayout, rows: Tensor | None = None
    ) -> Tensor:
        """Return the last hidden states, [T, C], in the base's type; or those of `rows` only.

        What the last layer makes after attention is computed for `rows` alone.
        """
        x = F.embedding(token_ids_T, self._embedding).float()
        angles = self._angles(x, layout.positions)
        again = torch.is_grad_enabled() and not self._keeps(x)
        made: Tensor | None = None
        for layer in self._layers:
            wanted = rows if layer is self._layers[-1] else None
            if again:
                x, made = checkpoint(
                    self._through, layer, x, made, angles, layout, wanted, use_reentrant=False
                )
            else:
                x, made = self._through(layer, x, made, angles, layout, wanted)
        return self._added(x, made, self._norm)[1]

    def _keeps(self, x: Tensor) -> bool:
        """Return whether the results of every layer are kept until the backward pass."""
        if len(x) > KEPT_TOKENS:
            return False
        free = free_bytes(x.device)
        return free is None or len(x) * self.token_bytes <= _KEPT_SHARE * free

    def _through(
        self,
        layer: "_Layer",
        x: Tensor,
        made: Tensor | None,
        angles: Angles,
        layout: PackedLayout,
        rows: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the residual stream in a layer, and what the layer adds to it at its end.

        `made` is what the layer before adds.
        """
        x, h = self._added(x, made, layer.attention_norm)
        qkv = layer.qkv(h)
        if layer.heads_norms is not None:
            qkv = self._heads_normed(qkv, layer.qkv.parts, layer.heads_norms)
        attended = self._operations.attended(qkv, angles, layout, self._key_heads, self._scale)
        if rows is not None:
            x, attended = x.index_select(0, rows), attended.index_select(0, rows)
        x, h = self._added(x, layer.out(attended), layer.mlp_norm)
        return x, layer.down(self._operations.gated(layer.gates(h)))

    def _added(self, x: Tensor, made: Tensor | None, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residual stream with what was made, and what the next product takes."""
        if made is None:
            return x, self._operations.normed(x, norm, self._eps, self._embedding.dtype)
        return self._operations.add_normed(x, made, norm, self._eps)

    def _heads_normed(
        self, qkv: Tensor, parts: Sequence[TrainedLinear], norms: Sequence[Tensor]
    ) -> Tensor:
        """Return queries and keys with each head normed, as Qwen3's are; values as they are."""
        query, key, value = torch.split(qkv, [len(part.weight) for part in parts], 1)
        normed = [
            self._operations.normed(
                one.reshape(-1, len(norm)).float(), norm, self._eps, qkv.dtype
            ).view_as(one)
            for one, norm in zip((query, key), norms, strict=True)
        ]
        return torch.cat([*normed, value], 1)

    def _angles(self, x: Tensor, positions: Tensor) -> Angles:
        cos, sin = self._rotations(x, positions[None])
        half = cos.shape[-1] // 2
        return cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()


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
        downs, ups = [part.down for part in self.parts], [part.up for part in self.parts]
        y = cast(Tensor, apply(_Adapted, x, self, *downs, *ups))
        return y if self.bias is None else y + self.bias


class _Adapted(torch.autograd.Function):
    """x W^T + s (x A^T) B^T of each part; gradients for x, and in float32 for A and B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: _Product, *matrices: Tensor) -> Tensor:
        dtype, parts = product.weight.dtype, len(product.parts)
        downs = torch.cat(matrices[:parts]).to(dtype)
        ups = [
            (up * part.scale).to(dtype)
            for up, part in zip(matrices[parts:], product.parts, strict=True)
        ]
        low = x @ downs.t()
        y = x @ product.weight.t()
        for up, own, lower in zip(ups, _outputs(y, ups), _lows(low, ups), strict=True):
            own.addmm_(lower, up.t())
        ctx.save_for_backward(x, low, downs, *ups)
        ctx.product = product
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, low, downs, *ups = ctx.saved_tensors
        product: _Product = ctx.product
        gradient = gradients[0]
        own = _outputs(gradient, ups)
        grad_low = torch.cat([part @ up for part, up in zip(own, ups, strict=True)], 1)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (gradient @ product.weight).addmm_(grad_low, downs)
        grad_downs = (grad_low.t() @ x).float().split([up.shape[1] for up in ups])
        grad_ups = [
            (part.t() @ lower).float().mul_(layer.scale)
            for part, lower, layer in zip(own, _lows(low, ups), product.parts, strict=True)
        ]
        return grad_x, None, *grad_downs, *grad_ups


def _outputs(y: Tensor, ups: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the columns of a product's outputs that are each part's."""
    columns: tuple[Tensor, ...] = torch.split(y, [len(up) for up in ups], 1)
    return columns


def _lows(low: Tensor, ups: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the columns of x A^T that are each part's."""
    columns: tuple[Tensor, ...] = torch.split(low, [up.shape[1] for up in ups], 1)
    return columns


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: _Product
    heads_norms: tuple[Tensor, Tensor] | None  # of each query and of each key, [D]
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
            heads_norms=_heads_norms(module),
            out=product("self_attn", ("o_proj",)),
            mlp_norm=norms.post_attention_layernorm.weight.detach().float(),
            gates=product("mlp", GATES),
            down=product("mlp", ("down_proj",)),
        )

    @property
    def token_bytes(self) -> int:
        """Return about what is kept of a token for the backward pass.

        The residual stream twice in float32; twice in the base's type what is normed; queries, keys
        and values as they are made, turned, taken apart and attended; gate, up and their product.
        """
        (hidden, out), (made, _) = self.out.weight.shape, self.gates.weight.shape
        narrow = 2 * hidden + 4 * len(self.qkv.weight) + out + made + made // 2
        return 8 * hidden + narrow * self.qkv.weight.element_size()


def _heads_norms(layer: Any) -> tuple[Tensor, Tensor] | None:
    attention = layer.self_attn
    if not hasattr(attention, "q_norm"):
        return None
    norms = attention.q_norm, attention.k_norm
    query, key = (norm.weight.detach().float() for norm in norms)
    return query, key
