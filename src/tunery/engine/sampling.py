"""The next token of each row, chosen by that row's own settings and its own random numbers.

A row's choice depends on its logits, its settings and its seed, never on its neighbours.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_CANDIDATES = 512  # enough for top_p nearly always; the rest sorts the whole vocabulary


@dataclass(slots=True)
class Sampling:
    """A row's settings: temperature 0 takes the likeliest token."""

    temperature: float
    top_p: float
    seed: int | None
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - sampling, not a secret

    def draw(self) -> float:
        """Return the next number in [0, 1) of this row's sequence."""
        return self._random.random()


def choose(logits_RV: Tensor, settings: Sequence[Sampling]) -> list[int]:
    """Return one token for each row of `logits_RV`, [rows, vocabulary].

    Sampling inverts the cumulative distribution at one uniform number a token. With top_p the
    distribution is cut to the smallest set of likeliest tokens whose mass reaches it (Holtzman et
    al. 2020).
    """
    chosen = logits_RV.argmax(-1).tolist()
    warm = [row for row, setting in enumerate(settings) if setting.temperature > 0]
    if not warm:
        return [int(token) for token in chosen]
    temperatures = torch.tensor([settings[row].temperature for row in warm])
    logits = logits_RV[torch.tensor(warm)].float()
    # A temperature near zero must not overflow: the largest logit is moved to 0 first.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperatures.clamp_min(1e-5)[:, None]
    probabilities = torch.softmax(logits, -1)
    for place, row in enumerate(warm):
        setting = settings[row]
        row_probabilities = probabilities[place]
        if setting.top_p < 1:
            chosen[row] = _nucleus(row_probabilities, setting.top_p, setting.draw())
        else:
            chosen[row] = _invert(row_probabilities, setting.draw())
    return [int(token) for token in chosen]


def _nucleus(probabilities_V: Tensor, top_p: float, number: float) -> int:
    count = min(_CANDIDATES, len(probabilities_V))
    values, tokens = probabilities_V.topk(count)
    if float(values.sum()) < top_p and count < len(probabilities_V):
        values, tokens = probabilities_V.sort(descending=True)
    before = values.cumsum(0) - values
    kept = values[before < top_p] if top_p > 0 else values[:1]
    return int(tokens[_invert(kept, number)])


def _invert(weights: Tensor, number: float) -> int:
    """Return the index where the running sum of `weights` passes `number` of the whole."""
    running = weights.double().cumsum(0)
    place = int(torch.searchsorted(running, running[-1] * number, right=True))
    if place >= len(weights):  # rounding at the very end
        place = len(weights) - 1
    return place
