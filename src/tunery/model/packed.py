"""Attention in training: whole sequences end to end, what all of them begin with in front, once.

Axes: B sequences, L longest of them, P tokens that all begin with, T tokens in all, K key/value
heads, G queries a key/value head, D head size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tunery.model.attention import HIDDEN, unseen
from tunery.model.device import CPU
from tunery.model.gradients import gathered, grouped_attention

ROUND_TOKENS = 32
_LONG = 768  # from this length on, keeping the probabilities costs more than computing them again
_BLOCK = 512  # queries of a long text that attend together where they see a window of it only


class PackedLayout:
    """Training: B whole sequences end to end, causal, none padded in the linears.

    What all of them begin with stands once, in front, and its keys and values are seen by all: its
    gradient is the sum of theirs, as if it had been computed for each. The rest of each is gathered
    to [B, L] for attention only; a query sees the keys of its own sequence up to itself. Gradients
    flow back through the inverse gather, without atomics. The row is filled up with `padding`
    tokens that belong to no sequence: oneDNN compiles a kernel for each length it meets, so lengths
    come from a small set.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        dtype: torch.dtype,
        shared: int = 0,
        device: torch.device = CPU,
    ) -> None:
        """`lengths` are those of the whole sequences; all of them begin with `shared` tokens."""
        if shared and shared >= min(lengths):
            raise ValueError(f"{shared} tokens are shared by sequences of {min(lengths)}")
        self._dtype, self._device = dtype, device
        own = [length - shared for length in lengths]
        self.sequences, self.shared, self.longest = len(own), shared, max(own)
        tokens, places = sum(own), self.sequences * self.longest
        self.padding = -(shared + tokens) % ROUND_TOKENS
        starts = [sum(own[:i]) for i in range(len(own))]
        columns = torch.arange(self.longest)
        self._gather = torch.cat(
            [
                shared + start + columns.clamp_max(length - 1)
                for start, length in zip(starts, own, strict=True)
            ]
        )
        used = torch.cat([i * self.longest + columns[:length] for i, length in enumerate(own)])
        nothing = torch.zeros(self.padding, dtype=torch.long)
        self._scatter = torch.cat([used, nothing])
        # The inverses: an index behind the last row takes no gradient.
        before = torch.full((shared,), places)
        self._ungather = torch.cat([before, used, nothing + places])
        self._unscatter = torch.full((places,), tokens + self.padding)
        self._unscatter[used] = torch.arange(tokens)
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}
        self.positions = torch.cat(
            [torch.arange(shared), *(shared + columns[:length] for length in own), nothing]
        )
        self._gather, self._ungather = self._gather.to(device), self._ungather.to(device)
        self._scatter, self._unscatter = self._scatter.to(device), self._unscatter.to(device)
        self.positions = self.positions.to(device)
        self.spans = torch.tensor([[shared + start for start in starts], own])
        """Where each sequence's own tokens start in the row, and how many they are, [2, B]."""
        self.shared_span = torch.tensor([[0], [shared]])
        owners = torch.arange(self.sequences).repeat_interleave(self.spans[1])
        self.places = torch.stack(
            [
                torch.cat([torch.full((shared,), self.sequences), owners, nothing - 1]),
                torch.cat([torch.arange(shared), used % self.longest, nothing]),
            ]
        )
        """The sequence that each token is of, B for what is shared and -1 for none; and its place
        among that sequence's own, [2, T]."""

    @property
    def is_long(self) -> bool:
        """Return whether attention's probabilities are computed again rather than kept.

        Keeping them pays on a processor only: a GPU has a fused kernel for every length.
        """
        return self.shared + self.longest > _LONG or self._device.type != "cpu"

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
        packed = (
            torch.cat([query_HTD, key_KTD, value_KTD])
            .transpose(0, 1)
            .reshape(query_HTD.shape[1], -1)
        )
        return self.attend_packed(packed, key_KTD.shape[0], query_HTD.shape[2], scale, window)

    def attend_packed(
        self, packed: Tensor, key_heads: int, size: int, scale: float, window: int | None = None
    ) -> Tensor:
        """Return attention's output, [T, H * D], of queries, keys and values in one row a token."""
        B, L, P = self.sequences, self.longest, self.shared
        heads = packed.shape[1] // size
        rows = gathered(packed, self._gather, self._ungather).view(B, L, heads, size)
        first = packed[:P].view(1, P, heads, size)
        if self.is_long:
            whole = rows if not P else torch.cat([first.expand(B, -1, -1, -1), rows], 1)
            out = self._streamed(whole, key_heads, scale, window)
            beginning, out = out[0, :P], out[:, P:].reshape(B * L, -1)
        else:
            mask = self._mask(P, P + L, window)
            out = self._products(rows, first if P else None, key_heads, mask, scale)
            beginning = out[:0]
            if P:
                mask = self._mask(0, P, window)
                beginning = self._products(first, None, key_heads, mask, scale)
        rest = gathered(out, self._scatter, self._unscatter)
        return torch.cat([beginning, rest]) if P else rest

    def _mask(self, first: int, end: int, window: int | None) -> Tensor:
        """Return what is added to scores, [end - first, end], of the tokens from `first` on."""
        key = first, end, window
        if key not in self._masks:
            places = torch.arange(end, device=self.positions.device)
            later = unseen(places[first:], places, window)
            self._masks[key] = torch.zeros_like(later, dtype=self._dtype)
            self._masks[key].masked_fill_(later, HIDDEN)
        return self._masks[key]

    def _products(
        self, rows: Tensor, first: Tensor | None, key_heads: int, mask: Tensor, scale: float
    ) -> Tensor:
        """Attend by batched products that keep the probabilities: fastest for short sequences.

        `rows` is [B, L, heads, D]; `first`, [1, P, heads, D], has keys and values before them.
        """
        B, L, heads, D = rows.shape
        K, H = key_heads, heads - 2 * key_heads
        G = H // K
        query = rows[:, :, :H].view(B, L, K, G, D).permute(0, 2, 3, 1, 4)
        seen = rows[:, :, H:]
        if first is not None:
            seen = torch.cat([first[:, :, H:].expand(B, -1, -1, -1), seen], 1)
        seen = seen.transpose(1, 2)
        key = seen[:, :K].reshape(B * K, -1, D)
        value = seen[:, K:].reshape(B * K, -1, D)
        grouped = query.reshape(B * K, G * L, D)
        out = grouped_attention(grouped, key, value, mask.repeat(G, 1), scale)
        out = out.view(B, K, G, L, D).permute(0, 3, 1, 2, 4)
        return out.reshape(B * L, H * D)

    def _streamed(
        self, padded_BLHD: Tensor, key_heads: int, scale: float, window: int | None
    ) -> Tensor:
        """Attend without keeping the probabilities: memory grows with L, not with its square."""
        B, L, heads, D = padded_BLHD.shape
        K, H = key_heads, heads - 2 * key_heads
        all_heads = padded_BLHD.transpose(1, 2)
        query, key, value = all_heads[:, :H], all_heads[:, H : H + K], all_heads[:, H + K :]
        whole = window is None or window >= L
        places = torch.arange(L, device=padded_BLHD.device)
        parts = []
        for first in range(0, L, L if whole else _BLOCK):
            end = L if whole else min(L, first + _BLOCK)
            begin = 0 if window is None else max(0, first - window + 1)
            mask = None
            if not whole:
                mask = ~unseen(places[first:end], places[begin:end], window)
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, :, first:end],
                    key[:, :, begin:end],
                    value[:, :, begin:end],
                    attn_mask=mask,
                    is_causal=whole,
                    scale=scale,
                    enable_gqa=True,
                )
            )
        out = parts[0] if whole else torch.cat(parts, 2)
        return out.transpose(1, 2).reshape(B, L, H * D)
