"""Several examples as one row of tokens, what all of them begin with computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
import torch.nn.functional as F
from torch import Tensor

from tunery.datasets.batches import Example
from tunery.model.base import BaseNetwork
from tunery.model.device import CPU
from tunery.model.packed import ROUND_TOKENS, PackedLayout

_LEAST_SHARED = 16  # fewer tokens are sooner computed twice than told apart


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A row, and its N learned tokens.

    `sources` are the places in the row that they are told from, `owners` the examples they are of.
    """

    token_ids: Tensor
    layout: PackedLayout
    sources: Tensor
    targets: Tensor
    owners: Tensor

    def hidden(self, network: BaseNetwork) -> Tensor:
        """Return the hidden states that the learned tokens are told from, [N, C]."""
        count = len(self.sources)
        # Filled up, as the row is: few lengths, and nobody reads the rest.
        rows = F.pad(self.sources, (0, -count % ROUND_TOKENS))
        return network.hidden(self.token_ids, self.layout, rows)[:count]


def pack(
    examples: Sequence[Example], dtype: torch.dtype, device: torch.device = CPU
) -> PackedBatch | None:
    """Return the examples in one row, or None where nothing of them is learned.

    What all of them begin with, as a system prompt, stands in it once.
    """
    shared = shared_tokens([example.token_ids for example in examples])
    token_ids = list(examples[0].token_ids[:shared])
    sources: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, example in enumerate(examples):
        start = len(token_ids) - shared  # where a place of the example stands in the row
        token_ids += example.token_ids[shared:]
        for place in range(1, len(example.token_ids)):
            if example.supervised[place]:
                before = place - 1
                sources.append(before if before < shared else start + before)
                targets.append(example.token_ids[place])
                owners.append(number)
    if not targets:
        return None
    lengths = [len(example.token_ids) for example in examples]
    layout = PackedLayout(lengths, dtype, shared, device)
    token_ids += [0] * layout.padding
    return PackedBatch(
        torch.tensor(token_ids).to(device),
        layout,
        torch.tensor(sources).to(device),
        torch.tensor(targets).to(device),
        torch.tensor(owners).to(device),
    )


def shared_tokens(texts: Sequence[Sequence[int]]) -> int:
    """Return with how many tokens all of several texts begin, each text's last one left out."""
    if len(texts) < 2:
        return 0
    room = min(map(len, texts)) - 1
    columns = zip(*(text[:room] for text in texts), strict=True)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return shared if shared >= _LEAST_SHARED else 0
