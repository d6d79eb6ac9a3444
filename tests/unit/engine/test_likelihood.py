"""Bias, penalties and log-probabilities: the numbers, by hand or by plain arithmetic."""

import math
import random
from collections.abc import Sequence

import pytest
import torch

from tunery.engine.sampling import Likelihood, Sampling, choose, sample


def _one(values: Sequence[float], setting: Sampling) -> tuple[int, Likelihood | None]:
    return sample(torch.tensor([list(values)]), [setting])[0]


def _log_softmax(values: Sequence[float]) -> list[float]:
    whole = math.log(sum(math.exp(value) for value in values))
    return [value - whole for value in values]


def test_penalties_lower_what_was_made_by_how_often_and_by_whether() -> None:
    # 2.0 falls by 0.5 + 0.25 at first and by 0.5 at each later time: 1.25, 0.75, 0.25.
    # 1.5 falls likewise: 0.75, 0.25. 1.0 is never made before the other two are below it.
    setting = Sampling(0, 1, None, presence_penalty=0.25, frequency_penalty=0.5)
    made = [_one([2.0, 1.5, 1.0], setting)[0] for _ in range(5)]
    # mu: (2, 1.5, 1), (1.25, 1.5, 1), (1.25, .75, 1), (.75, .75, 1), (.75, .75, .25)
    assert made[:4] == [0, 1, 0, 2]
    assert made[4] in (0, 1)


def test_a_negative_penalty_raises_what_was_made() -> None:
    setting = Sampling(0, 1, None, presence_penalty=-1.0)
    assert _one([1.0, 0.5], setting)[0] == 0
    assert [_one([1.0, 1.5], setting)[0] for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_each_step_is_that_of_the_formula(temperature: float) -> None:
    """Reference: Python floats, the documented formula, and the seed's own numbers."""
    numbers = random.Random(5)
    bias = {3: 1.5, 7: -0.5, 0: 0.25}
    setting = Sampling(temperature, 1.0, 11, 0.7, -0.3, tuple(bias.items()), 5)
    draws, made = random.Random(11), list[int]()
    for _ in range(60):
        values = [numbers.uniform(-2, 2) for _ in range(9)]
        mu = [
            value
            + bias.get(token, 0)
            - made.count(token) * -0.3
            - (1 if token in made else 0) * 0.7
            for token, value in enumerate(values)
        ]
        token, likelihood = _one(values, setting)
        if temperature:
            weights = [math.exp(value / temperature) for value in mu]
            goal, running, wanted = draws.random() * sum(weights), 0.0, -1
            while running <= goal:
                wanted += 1
                running += weights[wanted]
        else:
            wanted = max(range(9), key=mu.__getitem__)
        assert token == wanted
        logprobs = _log_softmax(mu)
        assert likelihood is not None
        assert likelihood.logprob == pytest.approx(logprobs[token], abs=1e-5)
        ranked = sorted(range(9), key=lambda one: -logprobs[one])[:5]
        assert [one for one, _ in likelihood.top] == ranked
        assert [p for _, p in likelihood.top] == pytest.approx(
            [logprobs[t] for t in ranked], abs=1e-5
        )
        made.append(token)


def test_a_bias_of_a_hundred_forces_and_one_of_minus_a_hundred_bans() -> None:
    values = [0.0, 5.0, 9.0]
    for temperature in (0.0, 1.0, 2.0):
        forced = Sampling(temperature, 1, 1, logit_bias=((0, 100.0),))
        banned = Sampling(temperature, 1, 1, logit_bias=((2, -100.0), (1, -100.0)))
        assert {_one(values, forced)[0] for _ in range(50)} == {0}
        assert {_one(values, banned)[0] for _ in range(50)} == {0}


def test_a_bias_below_the_steps_of_bfloat16_still_counts() -> None:
    logits = torch.full((1, 4), 20.0, dtype=torch.bfloat16)
    setting = Sampling(0, 1, None, logit_bias=((2, 0.01),), top_logprobs=4)
    token, likelihood = sample(logits, [setting])[0]
    assert token == 2
    assert likelihood is not None
    assert likelihood.logprob == pytest.approx(_log_softmax([0, 0, 0.01, 0])[2], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_without_these_settings_draw_as_if_alone_and_logits_are_left_as_they_were(
    dtype: torch.dtype,
) -> None:
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = logits.clone()

    def plain() -> list[Sampling]:
        return [Sampling(0.8, 0.9, 11), Sampling(0, 1, None)]

    alone, among = plain(), plain()
    others = [Sampling(1, 1, 3, 2.0, 2.0, ((5, 3.0),), 20), Sampling(0, 1, None, top_logprobs=0)]
    for _ in range(10):
        found = sample(logits, [*among, *others])
        assert [token for token, _ in found[:2]] == choose(logits[:2], alone)
        assert [likelihood for _, likelihood in found[:2]] == [None, None]
    assert torch.equal(logits, before)


def test_a_seed_repeats_with_bias_and_penalties() -> None:
    def made(seed: int) -> list[int]:
        setting = Sampling(1, 0.95, seed, 0.5, 0.5, ((1, 2.0),))
        return [_one([0.0] * 30, setting)[0] for _ in range(30)]

    assert made(3) == made(3) != made(4)


def test_log_probabilities_are_those_before_temperature_and_top_p() -> None:
    values = [1.0, 3.0, 2.0]
    wanted = _log_softmax(values)
    for setting in (
        Sampling(0, 1, None, top_logprobs=2),
        Sampling(0.3, 0.1, 4, top_logprobs=2),
        Sampling(2, 0, 4, top_logprobs=2),
    ):
        token, likelihood = _one(values, setting)
        assert token == 1
        assert likelihood is not None
        assert likelihood.logprob == pytest.approx(wanted[1], abs=1e-6)
        assert [one for one, _ in likelihood.top] == [1, 2]


def test_a_token_outside_the_likeliest_is_told_of_beside_them() -> None:
    setting = Sampling(1, 1, None, top_logprobs=1)
    found = [_one([0.0, 1.0, 0.5], setting) for _ in range(100)]
    assert {token for token, _ in found} == {0, 1, 2}
    for token, likelihood in found:
        assert likelihood is not None
        assert [one for one, _ in likelihood.top] == [1]
        assert likelihood.logprob == pytest.approx(_log_softmax([0, 1, 0.5])[token], abs=1e-6)


def test_rows_ask_for_different_numbers_of_alternatives() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0]] * 4)
    settings = [Sampling(0, 1, None, top_logprobs=n) for n in (0, 2, None, 20)]
    found = [likelihood for _, likelihood in sample(logits, settings)]
    assert [None if one is None else [t for t, _ in one.top] for one in found] == [
        [],
        [0, 1],
        None,
        [0, 1, 2],
    ]


@pytest.mark.parametrize("chosen", range(6))
def test_of_equally_likely_tokens_the_one_that_was_made_stands_first(chosen: int) -> None:
    logits = torch.zeros(1, 6)
    seed = next(s for s in range(999) if int(random.Random(s).random() * 6) == chosen)
    for count in (1, 3, 6):
        token, likelihood = sample(logits, [Sampling(1, 1, seed, top_logprobs=count)])[0]
        assert token == chosen
        assert likelihood is not None
        top = [one for one, _ in likelihood.top]
        assert top[0] == chosen
        assert len(set(top)) == count


def test_what_is_impossible_has_the_lowest_number_there_is_and_not_infinity() -> None:
    _, likelihood = _one([0.0, -math.inf, 1.0], Sampling(0, 1, None, top_logprobs=3))
    assert likelihood is not None
    assert likelihood.top[2] == (1, -9999.0)
    _, broken = _one([math.nan] * 3, Sampling(0, 1, None, top_logprobs=1))
    assert broken is not None
    assert broken.logprob == -9999.0
