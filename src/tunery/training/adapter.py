"""The adapter being learned: made over a base, saved and loaded, stepped by AdamW."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from tunery.model.adapter_file import AdapterWeights
from tunery.model.base import BaseNetwork, linear, replace
from tunery.model.device import CPU
from tunery.model.fused import fusable
from tunery.model.lora import TrainedLinear
from tunery.model.operations import TORCH, Operations
from tunery.model.trained import TrainedDecoder

RANK, ALPHA = 16, 32.0
MAX_GRADIENT_NORM = 1.0
_ARITHMETIC = "arithmetic"


@dataclass(frozen=True, slots=True)
class LearnedAdapter:
    """Every linear of the base with its A and B, and their optimizer."""

    layers: dict[str, TrainedLinear]
    optimizer: torch.optim.AdamW
    dtype: torch.dtype
    rank: int
    alpha: float

    @classmethod
    def over(
        cls,
        network: BaseNetwork,
        *,
        seed: int,
        start_from: AdapterWeights | None,
        operations: Operations = TORCH,
    ) -> "LearnedAdapter":
        """Put a trained linear in the place of each of the base's.

        With `start_from`, its weights are where learning begins, and its rank is kept. `operations`
        are what is computed between products, where the base is one that takes them.
        """
        rank = RANK if start_from is None else start_from.rank
        alpha = ALPHA if start_from is None else start_from.alpha
        generator = torch.Generator().manual_seed(seed)
        layers = {}
        for name in network.targets:
            layer = TrainedLinear(linear(network, name), rank, alpha, generator)
            if start_from is not None and name in start_from.layers:
                down, up = start_from.layers[name]
                with torch.no_grad():
                    layer.down.copy_(down)
                    layer.up.copy_(up)
            replace(network, name, layer)
            layers[name] = layer
        if fusable(network.decoder.inner.config):
            inner = {
                name.removeprefix(f"{network.decoder.prefix}."): layers[name] for name in layers
            }
            network.decoder.trained = TrainedDecoder(network.decoder.inner, inner, operations)
            network.decoder.operations = operations
        parameters = [p for layer in layers.values() for p in (layer.down, layer.up)]
        optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=True)
        return cls(layers, optimizer, network.dtype, rank, alpha)

    def parameters(self) -> list[Tensor]:
        """Return A and B of every layer, in the base's order."""
        return [p for layer in self.layers.values() for p in (layer.down, layer.up)]

    def is_finite(self) -> bool:
        """Return whether every number of A and B is one in the type they are computed in."""
        return all(bool(torch.isfinite(p.detach().to(self.dtype)).all()) for p in self.parameters())

    def step(self, learning_rate: float) -> float:
        """Clip the gradients, step, and return their norm before clipping.

        A norm that is not finite leaves the weights as they were.
        """
        norm = float(
            torch.nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT_NORM, foreach=True)
        )
        if math.isfinite(norm):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> AdapterWeights:
        """Return the adapter in the type it is computed in: what was trained, exactly."""
        return AdapterWeights(
            self.rank,
            self.alpha,
            {
                name: (
                    layer.down.detach().to(CPU, self.dtype),
                    layer.up.detach().to(CPU, self.dtype),
                )
                for name, layer in self.layers.items()
            },
        )

    def state(self, arithmetic: str, beside: Mapping[str, Tensor] | None = None) -> bytes:
        """Return masters and moments, all a run needs to go on as if it had not stopped.

        Tensors of the run's own, under names that no layer has, are kept `beside` them, and what
        it computes in.
        """
        tensors: dict[str, Tensor] = {} if beside is None else dict(beside)
        state: dict[Tensor, dict[str, Any]] = self.optimizer.state
        for name, layer in self.layers.items():
            for part, parameter in (("down", layer.down), ("up", layer.up)):
                tensors[f"{name}.{part}"] = parameter.detach().to(CPU)
                for key, value in state.get(parameter, {}).items():
                    tensors[f"{name}.{part}.{key}"] = value.to(CPU)
        return save(tensors, {_ARITHMETIC: arithmetic})

    def restore(self, data: bytes) -> dict[str, Tensor]:
        """Take up what `state` gave, and return all tensors that are in it."""
        tensors = load(data)
        for name, layer in self.layers.items():
            for part, parameter in (("down", layer.down), ("up", layer.up)):
                with torch.no_grad():
                    parameter.copy_(tensors[f"{name}.{part}"])
                moments = {
                    key: tensors[f"{name}.{part}.{key}"].to(parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{name}.{part}.{key}" in tensors
                }
                if moments:
                    self.optimizer.state[parameter] = moments
        return tensors


def arithmetic_of(state: bytes) -> str:
    """Return what the run computes in that a state is of."""
    size = int.from_bytes(state[:8], "little")  # safetensors: a length, JSON, the tensors
    return str(json.loads(state[8 : 8 + size])["__metadata__"][_ARITHMETIC])
