"""Supervised fine-tuning: the loss of a batch of examples under base and adapter."""

from collections.abc import Sequence

import torch

from tunery.datasets.batches import Example
from tunery.model.attention import PackedLayout
from tunery.model.base import BaseNetwork
from tunery.training.losses import Loss, supervised_loss


def batch_loss(network: BaseNetwork, examples: Sequence[Example]) -> Loss | None:
    """Return the mean loss over the batch's supervised tokens, or None where it has none.

    Each token's loss comes from the hidden state before it. Every supervised token weighs the
    same, whichever example it stands in.
    """
    token_ids: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    for example in examples:
        start = len(token_ids)
        token_ids += example.token_ids
        for place in range(1, len(example.token_ids)):
            if example.supervised[place]:
                sources.append(start + place - 1)
                targets.append(example.token_ids[place])
    if not targets:
        return None
    layout = PackedLayout([len(example.token_ids) for example in examples], network.dtype)
    token_ids += [0] * layout.padding
    hidden = network.hidden(torch.tensor(token_ids), layout)
    return supervised_loss(
        hidden.index_select(0, torch.tensor(sources)), network.head.weight, torch.tensor(targets)
    )
