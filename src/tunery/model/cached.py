"""Attention in serving: keys and values of texts in progress, and rows that go on from them.

Axes: T tokens, K key/value heads, G queries a key/value head, D head size.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tunery.model.attention import HIDDEN, unseen
from tunery.model.memory import Pages

_ROUND_KEYS = 32  # windows into the cache have few lengths as well


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
        mask.masked_fill_(unseen(positions, torch.arange(begin, end), window), HIDDEN)
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
