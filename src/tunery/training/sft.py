"""Supervised fine-tuning: the loss of a batch of examples under base and adapter."""

from collections.abc import Sequence
from itertools import takewhile

import torch

from tunery.datasets.batches import Example
from tunery.model.attention import PackedLayout
from tunery.model.base import BaseNetwork
from tunery.training.losses import Loss, supervised_loss

_LEAST_SHARED = 16  # fewer tokens are sooner computed twice than told apart


def batch_loss(network: BaseNetwork, examples: Sequence[Example]) -> Loss | None:
    """Return the mean loss over the batch's supervised tokens, or None where it has none.

    Each token's loss comes from the hidden state before it. Every supervised token weighs the
    same, whichever example it stands in. What all examples begin with, as a system prompt, is
    computed once for all of them.
    """
    shared = shared_tokens([example.token_ids for example in examples])
    token_ids = list(examples[0].token_ids[:shared])
    sources: list[int] = []
    targets: list[int] = []
    for example in examples:
        start = len(token_ids) - shared  # where a place of the example stands in the row
        token_ids += example.token_ids[shared:]
        for place in range(1, len(example.token_ids)):
            if example.supervised[place]:
                before = place - 1
                sources.append(before if before < shared else start + before)
                targets.append(example.token_ids[place])
    if not targets:
        return None
    lengths = [len(example.token_ids) for example in examples]
    layout = PackedLayout(lengths, network.dtype, shared)
    token_ids += [0] * layout.padding
    hidden = network.hidden(torch.tensor(token_ids), layout)
    return supervised_loss(
        hidden.index_select(0, torch.tensor(sources)), network.head.weight, torch.tensor(targets)
    )


def shared_tokens(texts: Sequence[Sequence[int]]) -> int:
    """Return with how many tokens all of several texts begin, each text's last one left out."""
    if len(texts) < 2:
        return 0
    room = min(map(len, texts)) - 1
    columns = zip(*(text[:room] for text in texts), strict=True)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    return shared if shared >= _LEAST_SHARED else 0
