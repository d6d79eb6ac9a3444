"""The one untyped call of torch that our own gradients need."""

from typing import Any

import torch


def apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Return `function` applied to `inputs`, remembered for the backward pass."""
    return function.apply(*inputs)  # type: ignore[no-untyped-call]  # torch leaves it untyped
