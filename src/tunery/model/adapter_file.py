"""Adapter files in PEFT's format: adapter_model.safetensors and adapter_config.json.

Read with suspicion: names, shapes, types and every number are checked before the engine sees them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_TYPES = {torch.float32, torch.bfloat16, torch.float16}
_LARGEST = 1e4  # trained numbers stay far below; 1e30 overflows in other rows' products too


class BadAdapter(ValueError):
    """Files that are no adapter for this base; the text says why."""


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """For each target's name its A [r, K] and B [N, r], and the scale alpha / r."""

    rank: int
    alpha: float
    layers: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def scale(self) -> float:
        """Return what B A x is multiplied with."""
        return self.alpha / self.rank


def write(weights: AdapterWeights, base: str) -> tuple[bytes, bytes]:
    """Return the two files: weights and configuration."""
    tensors = {}
    for name, (down, up) in weights.layers.items():
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = down.contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = up.contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": weights.rank,
        "lora_alpha": weights.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "target_modules": sorted({name.rpartition(".")[2] for name in weights.layers}),
    }
    return save(tensors, metadata={"format": "pt"}), json.dumps(config, indent=2).encode()


def read(
    weights: bytes, config: bytes, shapes: Mapping[str, tuple[int, int]], max_rank: int
) -> AdapterWeights:
    """Return an adapter; `shapes` gives (N, K) of every linear layer of the base.

    Raises BadAdapter for anything that does not fit, before a number is computed with.
    """
    try:
        settings = json.loads(config)
        rank, alpha = settings["r"], settings["lora_alpha"]
        tensors = load(weights)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadAdapter(f"the adapter's files cannot be read: {error}") from None
    if type(rank) is not int or not 1 <= rank <= max_rank:
        raise BadAdapter(f"got rank {rank!r}; needed 1 to {max_rank}")
    if type(alpha) not in (int, float) or not 0 < alpha <= 1e4:
        raise BadAdapter(f"got lora_alpha {alpha!r}; needed a number above 0")
    for switch in ("use_rslora", "use_dora", "fan_in_fan_out", "alpha_pattern", "rank_pattern"):
        if settings.get(switch):
            raise BadAdapter(f"{switch} is not supported")
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (outputs, inputs) in shapes.items():
        down = tensors.pop(f"{_PREFIX}{name}.lora_A.weight", None)
        up = tensors.pop(f"{_PREFIX}{name}.lora_B.weight", None)
        if down is None and up is None:
            continue
        if down is None or up is None:
            raise BadAdapter(f"layer {name} has only one of its two matrices")
        _check_layer(name, down, up, rank, outputs, inputs)
        layers[name] = (down, up)
    if tensors:
        raise BadAdapter(f"the base has no layer for {sorted(tensors)[0]!r}")
    if not layers:
        raise BadAdapter("the file holds no layer of this base")
    return AdapterWeights(rank, float(alpha), layers)


def _check_layer(name: str, down: Tensor, up: Tensor, rank: int, outputs: int, inputs: int) -> None:
    """Raise BadAdapter unless A is [rank, inputs], B [outputs, rank], and both are sane."""
    if tuple(down.shape) != (rank, inputs) or tuple(up.shape) != (outputs, rank):
        raise BadAdapter(
            f"layer {name} has shapes {tuple(down.shape)} and {tuple(up.shape)};"
            f" needed {(rank, inputs)} and {(outputs, rank)}"
        )
    if not {down.dtype, up.dtype} <= _TYPES:
        raise BadAdapter(f"layer {name} has numbers of type {down.dtype} and {up.dtype}")
    if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
        raise BadAdapter(f"layer {name} holds numbers that are not finite")
    if max(float(down.abs().max()), float(up.abs().max())) > _LARGEST:
        raise BadAdapter(f"layer {name} holds numbers above {_LARGEST:g}")
