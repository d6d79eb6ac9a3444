"""What a training step computes, and what the machine could: the training benchmark's yardstick.

The operations of a step, a multiplication and an addition each, as it really computes them, padding
and repeated work included. With N the parameters of the base's linears, n those of A and B, H
query heads of size D in each of the layers, V x K the output layer's shape; for t tokens in the
linears (B rows of L where they are padded), u of which logits are made:

    linears    2 N t forward, 2 N t backward: no gradient of a frozen weight is computed
    A and B    2 n t forward, 4 n t backward
               less the last layer's after attention, for tokens of which no logits are made
    attention  4 B L^2 H D a layer forward, 8 backward: whole squares, masked halves included
    logits     2 V K u forward, 2 V K u backward
    again      the forward parts of linears, A and B, and attention where they are computed anew
               for the backward pass (gradient checkpointing), and that of the logits likewise

Norms, activations, softmax and the optimizer are left out. Run with a base, this file prints the
base's sizes and the GFLOP/s of this machine's matrix products, the best of several shapes: those
of the base's own linears, of its output layer, and a square.
"""

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BEFORE_ATTENTION = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a base that the formula needs."""

    linears: int  # N
    adapter: int  # n
    head: int  # V x K
    layers: int
    attention: int  # H x D
    tail: int  # of N, those of the last layer that follow attention
    adapter_tail: int  # of n


@dataclass(slots=True)
class Step:
    """What was computed between two times; summed over a row's steps."""

    seconds: float = 0.0
    processor_s: float = 0.0  # of all threads together
    tokens: int = 0  # of the examples: no padding
    supervised: int = 0
    computed: int = 0  # t
    squares: int = 0  # B x L^2
    logits: int = 0  # u
    left_out: int = 0  # of t, those that the last layer computes no further than attention
    again: bool = False  # the network's forward pass is computed twice
    logits_again: bool = False

    def operations(self, sizes: Sizes) -> float:
        """Return how many there were."""
        network = 2 * (sizes.linears + sizes.adapter) * self.computed
        network += 4 * self.squares * sizes.attention * sizes.layers
        backward = 2 * (sizes.linears + 2 * sizes.adapter) * self.computed
        backward += 8 * self.squares * sizes.attention * sizes.layers
        network -= 2 * (sizes.tail + sizes.adapter_tail) * self.left_out
        backward -= 2 * (sizes.tail + 2 * sizes.adapter_tail) * self.left_out
        logits = 2 * sizes.head * self.logits
        forward = network * (2 if self.again else 1) + logits * (2 if self.logits_again else 1)
        return float(forward + backward + logits)


def total(steps: list[Step]) -> Step:
    """Return the sum."""
    whole = Step(again=steps[0].again, logits_again=steps[0].logits_again)
    for name in Step.__slots__:
        if not isinstance(getattr(whole, name), bool):
            setattr(whole, name, sum(getattr(step, name) for step in steps))
    return whole


def peak_bytes() -> int:
    """Return the most memory that this process ever held."""
    try:  # what a process took before its program was started counts to the other figure
        lines = Path("/proc/self/status").read_text().splitlines()
        held = next(line for line in lines if line.startswith("VmHWM:"))
        return int(held.split()[1]) * 1024
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def cores() -> int:
    """Return how many cores this process may use."""
    counted = getattr(os, "process_cpu_count", None)  # new in Python 3.13
    if counted is not None:
        return counted() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- the machine's peak; only this part needs torch and a base


def sizes_of(network: Any, rank: int) -> Sizes:
    """Return the sizes of a loaded base."""
    named = network.shapes()
    shapes = named.values()
    last = [
        shape
        for name, shape in named.items()
        if f".layers.{network.layers - 1}." in f".{name}" and name[-6:] not in _BEFORE_ATTENTION
    ]
    config = network.decoder.inner.config
    return Sizes(
        linears=sum(outputs * inputs for outputs, inputs in shapes),
        adapter=sum(rank * (outputs + inputs) for outputs, inputs in shapes),
        head=network.head.weight.numel(),
        layers=network.layers,
        attention=config.num_attention_heads * network.head_size,
        tail=sum(outputs * inputs for outputs, inputs in last),
        adapter_tail=sum(rank * (outputs + inputs) for outputs, inputs in last),
    )


def gflops(dtype: Any, shapes: list[tuple[int, int, int]], seconds: float) -> dict[str, float]:
    """Return the GFLOP/s of x [T, K] times W^T [K, N] for each shape (T, K, N)."""
    import torch

    found = {}
    for tokens, inputs, outputs in shapes:
        x, weight = torch.randn(tokens, inputs, dtype=dtype), torch.randn(outputs, inputs).to(dtype)
        best, until = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            x @ weight.t()
            best = min(best, time.perf_counter() - began)
        found[f"{tokens}x{inputs}x{outputs}"] = 2e-9 * tokens * inputs * outputs / best
    return found


def main() -> None:
    """Print sizes and peaks as one line of JSON."""
    import torch

    from tunery.model.base import load_base
    from tunery.training.adapter import RANK

    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="of a batch")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each shape")
    options = parser.parse_args()
    network = load_base(options.base, torch.bfloat16)
    own = {(options.tokens, inputs, outputs) for outputs, inputs in network.shapes().values()}
    vocabulary, hidden = network.head.weight.shape
    shapes = [*sorted(own), (512, hidden, vocabulary), (2048, 2048, 2048)]
    print(
        json.dumps(
            {
                "sizes": {name: getattr(sizes_of(network, RANK), name) for name in Sizes.__slots__},
                "bf16": gflops(torch.bfloat16, shapes, options.seconds),
                "fp32": gflops(torch.float32, shapes, options.seconds),
            }
        )
    )


if __name__ == "__main__":
    main()
