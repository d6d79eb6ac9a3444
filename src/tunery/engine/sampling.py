"""The next token of each row, chosen by that row's own settings and its own random numbers.

A row's choice depends on its logits, its settings and its seed, never on its neighbours.
Bias and penalties change the logits first, and what its grammar forbids is ruled out; then the
log-probabilities are taken, and then temperature and top_p apply. Knows tokens by their ids only.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from tunery.engine.grammar import GrammarMatcher

_BLOCK = 256  # tokens that are summed before they are looked through
_CANDIDATES = 512  # enough for top_p nearly always; the rest sorts the whole vocabulary
_LOWEST = -9999.0  # stands for every lower log-probability: JSON knows no infinity


@dataclass(slots=True)
class Sampling:
    """A row's settings, as `Generation` has them, and what its tokens so far have made of them."""

    temperature: float
    top_p: float
    seed: int | None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None
    grammar: GrammarMatcher | None = None
    _random: random.Random = field(init=False)
    _penalised: bool = field(init=False)
    _bias: dict[int, float] = field(init=False)
    _counts: dict[int, int] = field(init=False, default_factory=dict)
    _shifts: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - sampling, not a secret
        self._penalised = self.presence_penalty != 0 or self.frequency_penalty != 0
        self._bias = dict(self.logit_bias)
        self._shifts = dict(self.logit_bias)

    def draw(self) -> float:
        """Return the next number in [0, 1) of this row's sequence."""
        return self._random.random()

    @property
    def shifts(self) -> Mapping[int, float]:
        """Return what bias and penalties add to this row's logits now, by token."""
        return self._shifts

    def count(self, token: int) -> None:
        """Take note of a token that was made: the penalties and the grammar go by them."""
        if self.grammar is not None:
            self.grammar.take(token)
        if self._penalised:
            count = self._counts[token] = self._counts.get(token, 0) + 1
            penalty = count * self.frequency_penalty + self.presence_penalty
            self._shifts[token] = self._bias.get(token, 0.0) - penalty


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log p of the chosen token, and (token, log p) of the likeliest ones, likeliest first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def sample(logits_RV: Tensor, settings: Sequence[Sampling]) -> list[tuple[int, Likelihood | None]]:
    """Return each row's next token, and its likelihood where the row asks for that."""
    shifted_RV = _shifted(logits_RV, settings)
    tokens = choose(shifted_RV, settings)
    for setting, token in zip(settings, tokens, strict=True):
        setting.count(token)
    return list(zip(tokens, likelihoods(shifted_RV, settings, tokens), strict=True))


def _shifted(logits_RV: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """Return the logits with each row's bias and penalties, in float32; -inf for the forbidden.

    A bias added in bfloat16 would be rounded away, and bfloat16 is the slower type to search.
    """
    shifted = [
        (row, token, shift)
        for row, setting in enumerate(settings)
        for token, shift in setting.shifts.items()
    ]
    followed = [(row, one.grammar) for row, one in enumerate(settings) if one.grammar is not None]
    if not followed and not shifted:
        return logits_RV.float()
    shifted_RV = logits_RV.to(torch.float32, copy=True)
    if shifted:
        rows, tokens, shifts = (torch.tensor(column) for column in zip(*shifted, strict=True))
        shifted_RV[rows, tokens] += shifts
    for row, grammar in followed:
        shifted_RV[row].masked_fill_(grammar.forbidden(), -torch.inf)
    return shifted_RV


def likelihoods(
    logits_RV: Tensor, settings: Sequence[Sampling], tokens: Sequence[int]
) -> list[Likelihood | None]:
    """Return how likely each row's token is; None for a row that does not ask for it."""
    found: list[Likelihood | None] = [None] * len(settings)
    told = [row for row, setting in enumerate(settings) if setting.top_logprobs is not None]
    if not told:
        return found
    chosen = [tokens[row] for row in told]
    most = max(settings[row].top_logprobs or 0 for row in told)
    logprobs = torch.log_softmax(logits_RV[torch.tensor(told)], -1)
    of_chosen = logprobs.gather(1, torch.tensor(chosen)[:, None])[:, 0].tolist()
    values, places = (t.tolist() for t in logprobs.topk(min(most, logprobs.shape[-1])))
    for place, row in enumerate(told):
        count = settings[row].top_logprobs or 0
        top = list(zip(places[place], values[place], strict=True))[:count]
        if settings[row].grammar is not None:  # what it forbids is not to be listed
            top = [(token, value) for token, value in top if value > -torch.inf]
        found[row] = _likelihood(chosen[place], of_chosen[place], top)
    return found


def _likelihood(token: int, logprob: float, top: list[tuple[int, float]]) -> Likelihood:
    """Return a token's likelihood; among equally likely ones the token itself comes first.

    Equals are not rare in bfloat16, and at temperature 0 the chosen token is the likeliest one.
    """
    if top and logprob == top[-1][1] and all(other != token for other, _ in top):
        top[-1] = (token, logprob)
    top.sort(key=lambda pair: (-pair[1], pair[0] != token, pair[0]))
    return Likelihood(max(_LOWEST, logprob), tuple((t, max(_LOWEST, value)) for t, value in top))


def choose(logits_RV: Tensor, settings: Sequence[Sampling]) -> list[int]:
    """Return one token for each row of `logits_RV`, [rows, vocabulary], in float32.

    Sampling inverts the cumulative distribution at one uniform number a token. With top_p the
    distribution is cut to the smallest set of likeliest tokens whose mass reaches it (Holtzman et
    al. 2020).
    """
    chosen = [0] * len(settings)
    warm = [row for row, setting in enumerate(settings) if setting.temperature > 0]
    cold = [row for row, setting in enumerate(settings) if setting.temperature <= 0]
    if cold:
        likeliest = (logits_RV[torch.tensor(cold)] if warm else logits_RV).argmax(-1)
        for row, token in zip(cold, likeliest.tolist(), strict=True):
            chosen[row] = token
    if not warm:
        return chosen
    temperatures = torch.tensor([settings[row].temperature for row in warm])
    weights = logits_RV[torch.tensor(warm)].float()
    # A temperature near zero must not overflow: the largest logit is moved to 0 first.
    weights.sub_(weights.amax(-1, keepdim=True)).div_(temperatures.clamp_min(1e-5)[:, None]).exp_()
    numbers = [settings[row].draw() for row in warm]
    whole = [place for place, row in enumerate(warm) if settings[row].top_p >= 1]
    if whole:
        own = weights if len(whole) == len(warm) else weights[torch.tensor(whole)]
        found = _invert(own, torch.tensor([numbers[place] for place in whole]).double())
        for place, token in zip(whole, found.tolist(), strict=True):
            chosen[warm[place]] = token
    for place, row in enumerate(warm):
        if settings[row].top_p < 1:
            chosen[row] = _nucleus(weights[place], settings[row].top_p, numbers[place])
    return chosen


def _nucleus(weights_V: Tensor, top_p: float, number: float) -> int:
    count = min(_CANDIDATES, len(weights_V))
    mass = top_p * float(weights_V.sum())
    values, tokens = weights_V.topk(count)
    if float(values.sum()) < mass and count < len(weights_V):
        values, tokens = weights_V.sort(descending=True)
    before = values.cumsum(0) - values
    kept = values[: max(1, int((before < mass).sum()))]  # a mass too small for float32 keeps one
    return int(tokens[_invert(kept[None], torch.tensor([number]).double())[0]])


def _invert(weights_RV: Tensor, numbers_R: Tensor) -> Tensor:
    """Return where the running sum of each row's `weights` passes its number of the whole, [R].

    Blocks are summed first, and only the one that holds the place is looked through.
    """
    R, V = weights_RV.shape
    blocks_RBN = F.pad(weights_RV, (0, -V % _BLOCK)).view(R, -1, _BLOCK)
    running_RB = blocks_RBN.sum(-1, dtype=torch.float64).cumsum(-1)
    target_R1 = running_RB[:, -1:] * numbers_R[:, None]
    block_R1 = _passed(running_RB, target_R1)
    before_R1 = F.pad(running_RB, (1, 0)).gather(1, block_R1)
    inside_RN = blocks_RBN[torch.arange(R), block_R1[:, 0]].double().cumsum(-1) + before_R1
    return (block_R1 * _BLOCK + _passed(inside_RN, target_R1))[:, 0].clamp_max(V - 1)


def _passed(running_RN: Tensor, target_R1: Tensor) -> Tensor:
    """Return the first place where a running sum is above its target, [R, 1].

    By rounding it may never be, at the very end: then the last place that weighs anything. Where
    the sums are no numbers, it is some place: the rows beside must not suffer from one.
    """
    place_R1 = torch.searchsorted(running_RN, target_R1, right=True)
    last_R1 = torch.searchsorted(running_RN, running_RN[:, -1:].contiguous())
    return torch.minimum(place_R1, last_R1).clamp_max(running_RN.shape[1] - 1)
