"""LoRA linears: y = x W^T + s (x A^T) B^T, with W frozen (Hu et al. 2021, eq. 3; s = alpha / r).

`TrainedLinear` learns one A and B. `AdapterStacks` hold many, and each row of a batch uses its
own or none. Shapes: W [N, K], A [r, K], B [N, r], x [T, K].
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tunery.model.autograd import apply
from tunery.model.memory import Pages


class _LoraProduct(torch.autograd.Function):
    """The product and its gradients for x, A and B; W gets none, so none is kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
        low = x @ down.t()
        ctx.save_for_backward(x, weight, down, up, low)
        return (x @ weight.t()).addmm_(low, up.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor]:
        x, weight, down, up, low = ctx.saved_tensors
        (gradient,) = gradients
        grad_low = gradient @ up
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (gradient @ weight).addmm_(grad_low, down)
        return grad_x, None, grad_low.t() @ x, gradient.t() @ low


def lora_product(x: Tensor, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """Return x W^T + (x A^T) B^T, with gradients for x, A and B alone."""
    return cast(Tensor, apply(_LoraProduct, x, weight, down, up))


class TrainedLinear(nn.Module):
    """A frozen linear layer and the adapter being learned: float32 masters, computed in W's type.

    A starts uniform within 1/sqrt(K), B at zero, so that training starts from the base exactly.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.weight: Tensor = base.weight.detach()  # no parameter: nothing learns it
        self.bias: Tensor | None = base.bias
        bound = 1 / math.sqrt(base.in_features)
        down = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(self.weight.device))  # drawn alike for every device
        self.up = nn.Parameter(down.new_zeros(base.out_features, rank).to(self.weight.device))
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """Return the product; x is [1, T, K]."""
        dtype = self.weight.dtype
        down, up = self.down.to(dtype), (self.up * self.scale).to(dtype)
        y = lora_product(x[0].to(dtype), self.weight, down, up)
        return (y if self.bias is None else y + self.bias)[None]


_BESIDES = 2  # places that a mix multiplies for no row, so as not to gather the others anew
_KEPT = 8  # places whose adapters are kept gathered: some 80 MB of rank 16 on the default base


class AdapterRows:
    """Which adapter each row of the current step uses: shared by all stacks of a model.

    `places` has the index in the stacks, -1 for the base. One place for all rows is the quick way;
    a mix multiplies every used place and masks what is not the row's own. `ranks` are those of the
    adapters in the places, `rank` the highest of a step. Whoever gives the stacks other tensors
    raises `version`. `used` are the places that a mix multiplies: those of the step before, where
    they hold all of this one's and few besides.
    """

    def __init__(self, places: int, rank: int, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.ranks = torch.full((places,), rank, dtype=torch.int32)
        self.version = 0
        self.rank = rank
        self.places = torch.zeros(0, dtype=torch.int32)
        self.only: int | None = None
        self.mask: Tensor | None = None
        self.used: tuple[int, ...] = ()

    def select(self, rows: Sequence[int]) -> None:
        """Set each row's place for the next forward pass."""
        self.places = torch.tensor(rows, dtype=torch.int32)
        wanted = {place for place in rows if place >= 0}
        self.only, self.mask = None, None
        if not wanted:
            return
        if len(wanted) == 1 and len(set(rows)) == 1:
            (self.only,) = wanted
            self.rank = int(self.ranks[self.only])
            return
        if not wanted.issubset(self.used) or len(self.used) > len(wanted) + _BESIDES:
            self.used = tuple(sorted(wanted))
        self.rank = int(self.ranks[list(self.used)].max())
        column = {place: i for i, place in enumerate(self.used)}
        index = torch.tensor([column.get(place, -1) for place in rows])
        own = (index[:, None] == torch.arange(len(self.used))[None]).to(self._dtype)
        self.mask = own.repeat_interleave(self.rank, dim=1)


class AdapterTaker(Protocol):
    """Keeps the adapters of one linear in a form of its own."""

    def set(self, place: int, down: Tensor, up: Tensor) -> None:
        """Fill a place: A [r, K] and B [N, r], scaled and in the order of outputs; float32."""

    def clear(self, place: int) -> None:
        """Let go of the whole adapter in a place, if there is one."""


class AdapterStacks:
    """The adapters of one linear: A and B of every place, the rank padded with zeros.

    Shapes: down [places, r, K]; up [places, r, N], transposed and scaled. `order`, where the
    linear's outputs are computed in another order than the base's, is that order. Once they are
    handed over, nothing stands here.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        places: int,
        rank: int,
        dtype: torch.dtype,
        order: Tensor | None = None,
    ) -> None:
        self.outputs = outputs
        self.order = order
        self._down = Pages((places, rank, inputs), dtype)
        self._up = Pages((places, rank, outputs), dtype)
        self.down, self.up = self._down.tensor, self._up.tensor
        self._ranks: dict[int, int] = {}  # of the places that are filled
        self._mix: tuple[tuple[int, ...], int] = (), 0  # the places and the rank that stand in:
        self._mixed: tuple[Tensor, Tensor] | None = None
        self._taker: AdapterTaker | None = None

    def hand_over(self, taker: AdapterTaker) -> None:
        """Have `taker` keep what is here and what comes; the memory here is given back."""
        for place, rank in list(self._ranks.items()):
            up = self.up[place, :rank].t()
            taker.set(place, self.down[place, :rank].float(), up.float().contiguous())
            self.clear(place)
        self._taker = taker

    def set(self, place: int, down: Tensor, up: Tensor, scale: float) -> None:
        """Fill a place; ranks below the stack's are padded with zeros, which take no memory."""
        if self.order is not None:
            up = up[self.order]
        scaled = up.float() * scale
        if self._taker is not None:
            self._taker.set(place, down.float().contiguous(), scaled.contiguous())
            return
        self.clear(place)
        rank = self._ranks[place] = down.shape[0]
        self.down[place, :rank] = down.to(self.down.dtype)
        self.up[place, :rank] = scaled.t().to(self.up.dtype)

    def clear(self, place: int) -> None:
        """Make a place an adapter that changes nothing, and give its memory back."""
        if self._taker is not None:
            self._taker.clear(place)
            return
        self._mixed = None
        self._ranks.pop(place, None)
        self._down.clear(self.down[place])
        self._up.clear(self.up[place])

    def add(self, y: Tensor, x: Tensor, rows: AdapterRows) -> None:
        """Add to y, [T, N], what each row's own adapter makes of x, [T, K]."""
        if rows.only is not None:
            own = rows.only, slice(rows.rank)
            y.addmm_(x @ self.down[own].t(), self.up[own])
        elif rows.mask is not None:
            down, up = self._gathered(rows.used, rows.rank)
            y.addmm_((x @ down.t()).mul_(rows.mask), up)

    def _gathered(self, used: tuple[int, ...], rank: int) -> tuple[Tensor, Tensor]:
        """Return A and B of some places, end to end: [places r, K] and [places r, N].

        Of few places they are kept for the next step, which is most often one of the same places:
        to gather them takes as long as to multiply them.
        """
        if self._mixed is None or self._mix != (used, rank):
            places = torch.tensor(used)
            down, up = (part[:, :rank][places].flatten(0, 1) for part in (self.down, self.up))
            if len(used) > _KEPT:
                return down, up
            self._mix, self._mixed = (used, rank), (down, up)
        return self._mixed


class ServedLinear(nn.Module):
    """A frozen linear layer, packed for this processor, with its adapters."""

    def __init__(self, base: nn.Linear, rows: AdapterRows, stacks: AdapterStacks) -> None:
        super().__init__()
        self._linear = packed(base.weight, base.bias)
        self._rows = rows
        self._stacks = stacks

    def forward(self, x: Tensor) -> Tensor:
        """Return the product; x is [1, T, K]."""
        flat = x[0].to(self._stacks.down.dtype)
        y = self._linear(flat)
        self._stacks.add(y, flat, self._rows)
        return y[None]


class Packed:
    """A linear layer whose weight oneDNN has laid out for this processor once."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
        self._bias = bias

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weight as it was, the packed one, and the bias or an empty tensor."""
        plain = self._weight.to_dense()
        return plain, self._weight, plain.new_empty(0) if self._bias is None else self._bias

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


class Plain:
    """A linear layer as torch computes it."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product."""
        return F.linear(x, self._weight, self._bias)


def packed(weight: Tensor, bias: Tensor | None) -> Packed | Plain:
    """Return the linear packed where torch can do that here, else as it is.

    Packing is a private API of torch: a release without it falls back to the public one.
    """
    weight = weight.detach()
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return Plain(weight, bias)
    try:
        layer = Packed(weight, bias)
        layer(torch.zeros(1, weight.shape[1], dtype=weight.dtype))
    except (AttributeError, RuntimeError):
        return Plain(weight, bias)
    return layer
