"""The next token of each row, chosen by that row's own settings and its own random numbers.

A row's choice depends on its logits, its settings and its seed, never on its neighbours.
Bias and penalties change the logits first, and what its grammar forbids is ruled out; then the
log-probabilities are taken, and then temperature and top_p apply. Knows tokens by their ids only.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunery.engine.grammar import GrammarMatcher

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
    _shift: Tensor | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - sampling, not a secret
        self._penalised = self.presence_penalty != 0 or self.frequency_penalty != 0
        self._bias = dict(self.logit_bias)

    def draw(self) -> float:
        """Return the next number in [0, 1) of this row's sequence."""
        return self._random.random()

    def shift(self, vocabulary: int) -> Tensor | None:
        """Return what bias and penalties add to this row's logits now; None for nothing."""
        if self._shift is None and (self._bias or self._counts):
            self._shift = torch.zeros(vocabulary)
            for token in {*self._bias, *self._counts}:
                self._shift[token] = self._entry(token)
        return self._shift

    def count(self, token: int) -> None:
        """Take note of a token that was made: the penalties and the grammar go by them."""
        if self.grammar is not None:
            self.grammar.take(token)
        if self._penalised:
            self._counts[token] = self._counts.get(token, 0) + 1
            if self._shift is not None:
                self._shift[token] = self._entry(token)

    def _entry(self, token: int) -> float:
        count = self._counts.get(token, 0)
        penalty = count * self.frequency_penalty + (count > 0) * self.presence_penalty
        return self._bias.get(token, 0.0) - penalty


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
    shifts = [setting.shift(logits_RV.shape[-1]) for setting in settings]
    followed = [(row, one.grammar) for row, one in enumerate(settings) if one.grammar is not None]
    if not followed and all(shift_V is None for shift_V in shifts):
        return logits_RV.float()
    shifted_RV = logits_RV.to(torch.float32, copy=True)
    for row, shift_V in enumerate(shifts):
        if shift_V is not None:
            shifted_RV[row] += shift_V
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
    if place >= len(weights):  # rounding at the very end: the last one that weighs anything
        place = int(torch.searchsorted(running, running[-1]))
    return place
