"""Supervised fine-tuning: the loss of a batch of examples under base and adapter."""

from collections.abc import Sequence

from tunery.datasets.batches import Example
from tunery.model.base import BaseNetwork
from tunery.training.losses import Loss, supervised_loss
from tunery.training.packing import pack


def batch_loss(network: BaseNetwork, examples: Sequence[Example]) -> Loss | None:
    """Return the mean loss over the batch's supervised tokens, or None where it has none.

    Each token's loss comes from the hidden state before it. Every supervised token weighs the
    same, whichever example it stands in.
    """
    packed = pack(examples, network.dtype, network.device)
    if packed is None:
        return None
    hidden, operations = packed.hidden(network), network.decoder.operations
    return supervised_loss(hidden, network.head.weight, packed.targets, operations)
