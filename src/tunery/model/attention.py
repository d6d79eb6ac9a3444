"""Attention over many sequences laid end to end, plugged into transformers' models.

Every forward pass has one row of T tokens: shape [1, heads, T, head_dim]. A layout, passed through
the model's keyword arguments, says which tokens belong together: training's is model/packed,
serving's model/cached.

Axes: T tokens, H query heads, K key/value heads, D head size.
"""

from typing import Any, Protocol

from torch import Tensor
from transformers import AttentionInterface

NAME = "tunery"
HIDDEN = -1e4  # added to the score of a key that is not seen
_NOT_OURS = ("softcap", "s_aux", "sinks")


class NotOurs(ValueError):
    """A base computes what is not computed here; the text says what."""


class Layout(Protocol):
    """Says which tokens of the row see which.

    In a layer with a `window`, a token sees so many of those that it else sees: itself, and the
    ones right before it.
    """

    def attend(
        self,
        layer: int,
        query_HTD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Return attention's output, [T, H * D]."""


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    layout: Layout,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Follow transformers' attention interface: [1, H, T, D] in, [1, T, H, D] out."""
    del attention_mask
    for name in _NOT_OURS:
        if unused.get(name) is not None:
            raise NotOurs(f"attention with {name}")
    if not getattr(module, "is_causal", True):
        raise NotOurs("attention to tokens that come later")
    dtype = value.dtype  # rotation is computed in float32, like the residual stream
    heads = query[0].to(dtype), key[0].to(dtype), value[0]
    out = layout.attend(module.layer_idx, *heads, scaling, sliding_window)
    return out.view(1, out.shape[0], query.shape[1], query.shape[3]), None


def register() -> None:
    """Make `attn_implementation="tunery"` known to transformers."""
    AttentionInterface.register(NAME, _attention)


def unseen(positions: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Return which keys, by position, each of `positions` does not see, [positions, keys]."""
    behind = positions[:, None] - keys[None]
    unseen = behind < 0
    return unseen if window is None else unseen | (behind >= window)
