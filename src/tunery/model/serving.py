"""A base made ready to be served: its linears packed, and places for adapters beside each."""

from torch import nn

from tunery.model.base import BaseNetwork, copy_the_rest, linear, replace
from tunery.model.fused import FusedDecoder, fusable, paired
from tunery.model.lora import AdapterRows, AdapterStacks, ServedLinear


def serve(
    network: BaseNetwork, rows: AdapterRows, places: int, rank: int
) -> dict[str, AdapterStacks]:
    """Have the network compute each row with its own adapter; return each target's stacks.

    Call it once: the base's own linears are let go of.
    """
    copy_the_rest(network)
    config = network.decoder.inner.config
    fused = fusable(config)
    stacks = {}
    for name in network.targets:
        layer = linear(network, name)
        order = None
        if fused and name.endswith((".q_proj", ".k_proj")):
            order = paired(layer.out_features // network.head_size, network.head_size)
        stacks[name] = AdapterStacks(
            layer.in_features, layer.out_features, places, rank, network.dtype, order
        )
    if not fused:
        for name, stack in stacks.items():
            replace(network, name, ServedLinear(linear(network, name), rows, stack))
        return stacks
    prefix = network.decoder.prefix
    inner = {name.removeprefix(f"{prefix}."): stack for name, stack in stacks.items()}
    network.decoder.fused = FusedDecoder(network.decoder.inner, inner, rows)
    for name in network.targets:
        replace(network, name, nn.Identity())
    return stacks
