"""A Llama-like decoder for serving: the base's own weights, with fewer and larger operations.

Query, key and value are one product, gate and up another; the rest is what transformers computes.
The residual stream stays in float32. Knows the families whose layers look like Llama's; any other
base is served module by module. Where native operations were built (model/native), a step is one
call; without them, or on another processor, it is computed here.

Axes: T tokens, H query heads, K key/value heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunery.model.cached import CachedLayout
from tunery.model.lora import AdapterRows, AdapterStacks, Packed, Plain, packed

_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_ROTATIONS = ("default", "linear", "llama3", "yarn")  # whose angles do not depend on the length
_WIDTH, _HEAD_WIDTH = 32, 16  # what the native operations take whole numbers of
_MOST_HEAD = 256
ROUND_ROWS = 8  # oneDNN compiles a kernel for each number of rows
ATTENTION = ("q_proj", "k_proj", "v_proj")
GATES = ("gate_proj", "up_proj")


def fusable(config: Any) -> bool:
    """Return whether a base of this configuration can be computed here."""
    rotation = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in _FAMILIES
        and config.hidden_act == "silu"
        and rotation.get("rope_type") in _ROTATIONS
        and rotation.get("partial_rotary_factor", 1.0) == 1.0
        and not _slides(config)
    )


def rotates_alike(config: Any) -> bool:
    """Return whether a position is rotated by the same angles in texts of every length."""
    rotation = getattr(config, "rope_parameters", None) or {}
    each = rotation.values() if "rope_type" not in rotation else [rotation]  # kind of layer
    return all(one is None or one["rope_type"] in _ROTATIONS for one in each)


def _slides(config: Any) -> bool:
    if getattr(config, "sliding_window", None) is None:
        return False
    return bool(getattr(config, "use_sliding_window", True))


@dataclass(frozen=True, slots=True)
class FusedLinear:
    """Several linears over one input as one product, and the adapters of each."""

    product: Packed | Plain
    stacks: Sequence[AdapterStacks]

    @classmethod
    def over(cls, linears: Sequence[nn.Linear], stacks: Sequence[AdapterStacks]) -> "FusedLinear":
        """Return the product of the linears' weights, each stack's outputs in its own order."""
        orders = [stack.order for stack in stacks]
        weight = torch.cat(
            [_in_order(one.weight, order) for one, order in zip(linears, orders, strict=True)]
        )
        bias = None
        if linears[0].bias is not None:
            bias = torch.cat(
                [_in_order(one.bias, order) for one, order in zip(linears, orders, strict=True)]
            )
        return cls(packed(weight, bias), stacks)

    def __call__(self, x: Tensor, rows: AdapterRows) -> Tensor:
        """Return the outputs, side by side, each with its rows' adapters."""
        y: Tensor = self.product(x)
        first = 0
        for stack in self.stacks:
            last = first + stack.outputs
            stack.add(y[:, first:last], x, rows)
            first = last
        return y


def _in_order(rows: Tensor, order: Tensor | None) -> Tensor:
    rows = rows.detach()
    return rows if order is None else rows[order]


def paired(heads: int, size: int) -> Tensor:
    """Return the order of outputs in which a rotation's two numbers stand side by side.

    Transformers rotates (i, i + D/2) of a head; as neighbours they are one complex number. Queries
    and keys are in the same order, so their products are unchanged.
    """
    half = torch.arange(size // 2)
    head = torch.stack([half, half + size // 2], 1).flatten()
    return (torch.arange(heads)[:, None] * size + head).flatten()


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: Tensor
    qkv: FusedLinear
    heads_norm: Tensor | None  # of each query and key head, [H + K, D]
    out: FusedLinear
    mlp_norm: Tensor
    gates: FusedLinear
    down: FusedLinear

    @property
    def linears(self) -> tuple[FusedLinear, ...]:
        """Return the layer's products in the order of the computation."""
        return self.qkv, self.out, self.gates, self.down


@dataclass(frozen=True, slots=True)
class _EightBits:
    """The adapters of one linear, the `target` of layer `number`, in the native decoder."""

    native: Any
    number: int
    target: int

    def set(self, place: int, down: Tensor, up: Tensor) -> None:
        self.native.set_adapter(place, self.number, self.target, down, up)

    def clear(self, place: int) -> None:
        self.native.clear_adapter(place)


class FusedDecoder:
    """The decoder of a Llama-like base over slots of keys and values."""

    def __init__(self, decoder: Any, stacks: dict[str, AdapterStacks], rows: AdapterRows) -> None:
        config = decoder.config
        self.rows = rows
        self._embedding: Tensor = decoder.embed_tokens.weight.detach()
        self._eps: float = config.rms_norm_eps
        self.heads, self.key_value_heads = config.num_attention_heads, config.num_key_value_heads
        self.size: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self._layers = [
            _layer(module, stacks, f"layers.{number}.")
            for number, module in enumerate(decoder.layers)
        ]
        self._norm: Tensor = decoder.norm.weight.detach().float()
        self._turns = rotations(decoder, config.max_position_embeddings)
        # Queries are scaled as they are turned: they are rounded once.
        scales = torch.ones(self.heads + self.key_value_heads)
        scales[: self.heads] = decoder.layers[0].self_attn.scaling
        self._scales = scales[:, None]
        self._stacks = [
            [stack for one in layer.linears for stack in one.stacks] for layer in self._layers
        ]
        self.round_rows = ROUND_ROWS
        """Steps are quick whose rows are a whole number of these."""
        self._native: Any = None
        self._shared = -1  # the version of the stacks that the native decoder has

    def hidden(self, token_ids_T: Tensor, layout: CachedLayout) -> Tensor:
        """Return the last hidden states, [T, hidden]: in the base's type, natively in float32."""
        if self._native is not None:
            return self._step(token_ids_T, layout)
        dtype = self._embedding.dtype
        turns = self._turns[layout.positions][:, None] * self._scales
        x = F.embedding(token_ids_T, self._embedding).float()
        for number, layer in enumerate(self._layers):
            h = self._normed(x, layer.attention_norm).to(dtype)
            qkv = layer.qkv(h, self.rows)
            x += layer.out(self._attend(number, qkv, layer.heads_norm, turns, layout), self.rows)
            h = self._normed(x, layer.mlp_norm).to(dtype)
            gate, up = layer.gates(h, self.rows).chunk(2, -1)
            x += layer.down(F.silu(gate) * up, self.rows)
        return self._normed(x, self._norm).to(dtype)

    def takes_native(self) -> bool:
        """Return whether the native operations can compute this base: bfloat16, even sizes.

        They know no norms of heads.
        """
        products = [one.product for layer in self._layers for one in layer.linears]
        widths = [
            stack.outputs for layer in self._layers for one in layer.linears for stack in one.stacks
        ]
        return (
            all(layer.heads_norm is None for layer in self._layers)
            and all(isinstance(product, Packed) for product in products)
            and all(width % _WIDTH == 0 for width in (*widths, len(self._norm)))
            and self.size % _HEAD_WIDTH == 0
            and self.size <= _MOST_HEAD
        )

    def use_native(self, *, eight_bits: bool) -> None:
        """Compute with the native operations, which have been loaded, from now on.

        With `eight_bits`, products are those of whole numbers of eight bits with a scale for each
        32 (model/native/eight.h): half the memory to read, and up to 0.8% of a product in error.
        """
        native = torch.classes.tunery.Decoder(
            self.heads,
            self.key_value_heads,
            self.size,
            self._eps,
            eight_bits,
            self._turns.real.contiguous(),
            self._turns.imag.contiguous(),
            self._norm,
        )
        for layer in self._layers:
            native.add_layer(
                [layer.attention_norm, layer.mlp_norm],
                [
                    tensor
                    for one in layer.linears
                    if isinstance(one.product, Packed)
                    for tensor in one.product.tensors()
                ],
            )
        self._native, self._shared = native, -1

    def keep_eight_bits_only(self) -> None:
        """Give the memory of the bfloat16 weights back; call it once eight bits are settled on.

        Adapters are then kept in eight bits too, those that are there and those that come.
        """
        if torch.ops.tunery.has_tiles():  # larger products are computed in bfloat16 there
            return
        self._layers, self.round_rows = [], 1
        for number, stacks in enumerate(self._stacks):
            for target, stack in enumerate(stacks):
                stack.hand_over(_EightBits(self._native, number, target))
        self._stacks = []

    def adapter_bytes(self, rank: int) -> int | None:
        """Return the memory of an adapter of that rank where it is kept here, not in the stacks."""
        if self._native is None or self._stacks:
            return None
        return int(self._native.adapter_bytes(rank))

    def _step(self, token_ids_T: Tensor, layout: CachedLayout) -> Tensor:
        self._share_adapters()
        x = F.embedding(token_ids_T, self._embedding).float()
        hidden: Tensor = self._native.step(
            x,
            layout.positions,
            layout.slots,
            layout.decoding,
            layout.pieces,
            self.rows.places,
            self.rows.ranks,
            layout.cache.keys,
            layout.cache.values,
        )
        return hidden

    def _share_adapters(self) -> None:
        """Give the native decoder the stacks, where they are not those that it has."""
        if self._shared == self.rows.version:
            return
        for number, stacks in enumerate(self._stacks):
            tensors = [tensor for stack in stacks for tensor in (stack.down, stack.up)]
            self._native.set_adapters(number, tensors)
        self._shared = self.rows.version

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._eps)

    def _attend(
        self,
        number: int,
        qkv: Tensor,
        heads_norm: Tensor | None,
        turns: Tensor,
        layout: CachedLayout,
    ) -> Tensor:
        T, H, K, D = len(qkv), self.heads, self.key_value_heads, self.size
        turned = qkv[:, : (H + K) * D].float().view(T, H + K, D)
        if heads_norm is not None:
            turned = F.rms_norm(turned, (D,), None, self._eps) * heads_norm
        turned = turned.view(T, H + K, D // 2, 2)
        turned = torch.view_as_real(torch.view_as_complex(turned) * turns)
        turned = turned.view(T, H + K, D).to(qkv.dtype).transpose(0, 1)
        value = qkv[:, (H + K) * D :].view(T, K, D).transpose(0, 1)
        return layout.attend(number, turned[:H], turned[H:], value, 1.0)


def _layer(module: Any, stacks: dict[str, AdapterStacks], prefix: str) -> _Layer:
    def fused(part: str, names: Sequence[str]) -> FusedLinear:
        parent = getattr(module, part)
        linears = [getattr(parent, name) for name in names]
        return FusedLinear.over(linears, [stacks[f"{prefix}{part}.{name}"] for name in names])

    return _Layer(
        attention_norm=module.input_layernorm.weight.detach().float(),
        qkv=fused("self_attn", ATTENTION),
        heads_norm=_heads_norm(module.self_attn),
        out=fused("self_attn", ("o_proj",)),
        mlp_norm=module.post_attention_layernorm.weight.detach().float(),
        gates=fused("mlp", GATES),
        down=fused("mlp", ("down_proj",)),
    )


def _heads_norm(attention: Any) -> Tensor | None:
    """Return the weights of the norms that Qwen3 puts on queries and keys, in our order."""
    if not hasattr(attention, "q_norm"):
        return None
    size: int = attention.head_dim
    norms = [
        norm.weight.detach().float()[paired(1, size)].expand(linear.out_features // size, -1)
        for norm, linear in (
            (attention.q_norm, attention.q_proj),
            (attention.k_norm, attention.k_proj),
        )
    ]
    return torch.cat(norms)


def rotations(decoder: Any, context: int) -> Tensor:
    """Return each position's rotation as complex numbers, [context, D / 2] (Su et al. 2021)."""
    positions = torch.arange(context)[None]
    cos, sin = decoder.rotary_emb(torch.zeros(1, dtype=torch.float32), positions)
    half = cos.shape[-1] // 2
    return torch.complex(cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous())
