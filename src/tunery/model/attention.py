"""Attention over many sequences laid end to end, plugged into transformers' models.

Every forward pass has one row of T tokens: shape [1, heads, T, head_dim]. A layout, passed through
the model's keyword arguments, says which tokens belong together.

Axes: B sequences, L longest of them, T tokens in all, K key/value heads, G queries a key/value
head, D head size.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from tunery.model.device import CPU
from tunery.model.gradients import gathered, grouped_attention
from tunery.model.memory import Pages

NAME = "tunery"
ROUND_TOKENS = 32
_ROUND_KEYS = 32  # windows into the cache have few lengths as well
_LONG = 768  # from this length on, keeping the probabilities costs more than computing them again
_HIDDEN = -1e4  # added to the score of a key that is not seen
_BLOCK = 512  # queries of a long text that attend together where they see a window of it only
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
            unseen = _unseen(places[first:], places, window)
            self._masks[key] = torch.zeros_like(unseen, dtype=self._dtype)
            self._masks[key].masked_fill_(unseen, _HIDDEN)
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
                mask = ~_unseen(places[first:end], places[begin:end], window)
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


def _unseen(positions: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Return which keys, by position, each of `positions` does not see, [positions, keys]."""
    behind = positions[:, None] - keys[None]
    unseen = behind < 0
    return unseen if window is None else unseen | (behind >= window)


class SlotCache:
    """Keys and values of texts in progress or kept: a slot each, [slots + 1, K, context, D].

    The last slot is scratch: rows that only fill a batch up write there. Memory is taken as tokens
    are written, and given back as they are cleared.
    """

    def __init__(
        self, layers: int, slots: int, heads: int, context: int, size: int, dtype: torch.dtype
    ) -> None:
        context = -(-context // _ROUND_KEYS) * _ROUND_KEYS
        shape = (slots + 1, heads, context, size)
        self._pages = [Pages(shape, dtype) for _ in range(2 * layers)]
        self.keys = [pages.tensor for pages in self._pages[:layers]]
        self.values = [pages.tensor for pages in self._pages[layers:]]
        self.scratch = slots
        self._token_bytes = 2 * layers * heads * size * self.keys[0].element_size()

    def bytes_of(self, tokens: int) -> int:
        """Return the memory that a slot of so many tokens takes."""
        return -(-tokens // _ROUND_KEYS) * _ROUND_KEYS * self._token_bytes

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Write the first `tokens` of one slot into another."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :tokens] = tensor[source, :, :tokens]

    def clear(self, slot: int, first: int, end: int) -> None:
        """Forget a slot's tokens from `first` to `end`.

        A mask hides them from the tokens before, but no mask hides numbers that are large enough.
        """
        for pages in self._pages:
            for head in pages.tensor[slot]:
                pages.clear(head[first:end])


_Seen = tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]  # by runs, and by pieces


class CachedLayout:
    """Serving: some rows decode one token of a slot each, the rest are pieces of prompts.

    `decoding` slots come first, one token each, in ascending order of slot; then `pieces`
    (slot, tokens), each continuing its slot. `positions` holds every token's place in its slot.
    `padding` rows at the end fill the batch up and are computed for nothing.
    """

    def __init__(
        self,
        cache: SlotCache,
        decoding: Sequence[int],
        pieces: Sequence[tuple[int, int]],
        positions: Sequence[int],
        padding: int,
    ) -> None:
        self.cache = cache
        self.decoding = len(decoding)
        self.positions = torch.tensor([*positions, *([0] * padding)])
        slots = [*decoding, *(slot for slot, n in pieces for _ in range(n))]
        self.slots = torch.tensor(slots + [cache.scratch] * padding)
        self._dtype = cache.keys[0].dtype
        self._runs = _runs(decoding, positions)
        self._seen_by: dict[int | None, _Seen] = {}
        self._pieces = []
        first = len(decoding)
        for slot, n in pieces:
            self._pieces.append((first, n, slot, positions[first]))
            first += n

    @property
    def pieces(self) -> Tensor:
        """Return (first row, rows, slot, place of the first in it) of each piece, [P, 4]."""
        return torch.tensor(self._pieces, dtype=torch.int64).view(-1, 4)

    def _seen(self, window: int | None) -> _Seen:
        """Return what the rows see in a layer with such a window, found once a step."""
        if window not in self._seen_by:
            rows = [(first, last, end) for first, last, _, end in self._runs]
            rows += [(first, first + n, start + n) for first, n, _, start in self._pieces]
            seen = [self._keys(*row, window) for row in rows]
            self._seen_by[window] = seen[: len(self._runs)], seen[len(self._runs) :]
        return self._seen_by[window]

    def _keys(self, first: int, last: int, end: int, window: int | None) -> tuple[int, Tensor]:
        """Return the first key that some of the rows see, and the mask over it and the next."""
        positions = self.positions[first:last]
        begin = 0
        if window is not None:
            begin = max(0, int(positions.min()) - window + 1) // _ROUND_KEYS * _ROUND_KEYS
        mask = torch.zeros(last - first, end - begin, dtype=self._dtype)
        mask.masked_fill_(_unseen(positions, torch.arange(begin, end), window), _HIDDEN)
        return begin, mask

    def attend(
        self,
        layer: int,
        query_HTD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        scale: float,
        window: int | None = None,
    ) -> Tensor:
        """Write this step's keys and values, then return attention's output, [T, H * D]."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        H, T, D = query_HTD.shape
        K = key_KTD.shape[0]
        G = H // K
        keys[self.slots, :, self.positions] = key_KTD.transpose(0, 1)
        values[self.slots, :, self.positions] = value_KTD.transpose(0, 1)
        scaled = query_HTD if scale == 1 else query_HTD * scale
        query = scaled.transpose(0, 1).reshape(T, K, G, D)
        out = query.new_zeros(T, K, G, D)
        runs, pieces = self._seen(window)
        for (first, last, slot, end), (begin, mask) in zip(self._runs, runs, strict=True):
            n, seen = last - first, end - begin
            slots = slice(slot, slot + n)
            k = keys[slots, :, begin:end].reshape(n * K, seen, D)
            v = values[slots, :, begin:end].reshape(n * K, seen, D)
            scores = torch.bmm(query[first:last].reshape(n * K, G, D), k.transpose(1, 2))
            scores = scores.view(n, K, G, seen).add_(mask[:, None, None]).view(n * K, G, seen)
            out[first:last] = torch.bmm(torch.softmax(scores, -1), v).view(n, K, G, D)
        for (first, n, slot, start), (begin, mask) in zip(self._pieces, pieces, strict=True):
            own = slice(begin, start + n)
            q = query[first : first + n].permute(1, 2, 0, 3).reshape(K, G * n, D)
            scores = torch.bmm(q, keys[slot, :, own].transpose(1, 2)).add_(mask.repeat(G, 1))
            attended = torch.bmm(torch.softmax(scores, -1), values[slot, :, own])
            out[first : first + n] = attended.view(K, G, n, D).permute(2, 0, 1, 3)
        return out.view(T, H * D)


def _runs(decoding: Sequence[int], positions: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Return (first row, last row, first slot, keys) of rows that one product can serve.

    Those are consecutive slots whose lengths round up to the same power of two, so that a short
    answer does not pay for a long one beside it.
    """

    def length_class(row: int) -> int:
        return max(7, math.ceil(math.log2(positions[row] + 1)))

    runs = []
    first = 0
    while first < len(decoding):
        last = first + 1
        while (
            last < len(decoding)
            and decoding[last] == decoding[last - 1] + 1
            and length_class(last) == length_class(first)
        ):
            last += 1
        longest = max(positions[first:last]) + 1
        runs.append((first, last, decoding[first], -(-longest // _ROUND_KEYS) * _ROUND_KEYS))
        first = last
    return runs
