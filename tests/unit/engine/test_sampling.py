"""The next token: likeliest, by softmax, within the nucleus, and by the row's own seed."""

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tunery.engine.sampling import Sampling, choose


def _logits(probabilities: Sequence[float]) -> Tensor:
    return torch.tensor([[math.log(p) for p in probabilities]])


def _shares(logits: Tensor, temperature: float, top_p: float, count: int) -> dict[int, float]:
    settings = [Sampling(temperature, top_p, seed) for seed in range(count)]
    chosen = Counter(choose(logits.expand(count, -1), settings))
    return {token: chosen[token] / count for token in chosen}


def _apart(shares: dict[int, float], wanted: dict[int, float]) -> float:
    """Return the total variation distance of two distributions."""
    return sum(abs(shares.get(t, 0) - wanted.get(t, 0)) for t in {*shares, *wanted}) / 2


def test_temperature_zero_takes_the_likeliest_whatever_the_other_settings() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.9], [5.0, -1.0, 4.9], [-3.0, -2.0, -1.0]])
    settings = [Sampling(0, top_p, seed) for seed, top_p in ((None, 1.0), (7, 0.0), (8, 0.5))]
    assert [choose(logits, settings) for _ in range(5)] == [[1, 0, 2]] * 5


# Four thousand draws of six tokens lie within 0.03 of their distribution nearly always:
# the expected distance is about 0.4 * sqrt(tokens / draws) = 0.015.
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    values = [1.5, 0.0, -2.0, 0.7, 1.0, -0.3]
    powers = [math.exp(value / temperature) for value in values]
    wanted = {token: power / sum(powers) for token, power in enumerate(powers)}
    shares = _shares(torch.tensor([values]), temperature, 1.0, 4000)
    assert _apart(shares, wanted) < 0.03


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        # Sorted: token 2 (0.5), 0 (0.25), 3 (0.125), 1 (0.125); running sums 0.5, 0.75, ...
        (0.0, {2: 1.0}),
        (0.3, {2: 1.0}),
        (0.51, {2: 2 / 3, 0: 1 / 3}),
        (0.74, {2: 2 / 3, 0: 1 / 3}),
        (0.9, {2: 0.5, 0: 0.25, 1: 0.125, 3: 0.125}),
    ],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it_in_its_own_proportions(
    top_p: float, kept: dict[int, float]
) -> None:
    shares = _shares(_logits([0.25, 0.125, 0.5, 0.125]), 1.0, top_p, 4000)
    assert shares.keys() == kept.keys()
    assert _apart(shares, kept) < 0.03


def test_top_p_that_is_reached_exactly_keeps_no_token_more() -> None:
    # Powers of two: probabilities and their running sums are exact.
    logits = torch.tensor([[1.0, 1.0, 0.0, 0.0]]) * 1000
    assert _shares(logits, 1.0, 0.5, 300).keys() <= {0, 1}
    assert len(_shares(logits, 1.0, 0.5, 300)) == 1
    assert _shares(logits, 1.0, 0.75, 300).keys() == {0, 1}


@pytest.mark.parametrize("top_p", [0.0, 1e-50])
def test_the_smallest_nucleus_is_the_likeliest_token(top_p: float) -> None:
    logits = _logits([0.3, 0.6, 0.1])
    assert [choose(logits, [Sampling(1, top_p, seed)]) for seed in range(9)] == [[1]] * 9


def test_a_nucleus_larger_than_the_shortlist_is_kept_whole() -> None:
    logits = torch.full((1, 2000), -9.0)
    logits[0, 500:1500] = 0.0  # a thousand tokens hold 0.9999 of the mass
    shares = _shares(logits, 1.0, 0.99, 3000)
    assert shares.keys() <= set(range(500, 1500))
    # 3000 draws from 990 tokens meet 990 * (1 - e^-3.03) = 942 of them on average.
    assert 900 < len(shares) < 991


@pytest.mark.parametrize("top_p", [1.0, 0.5])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_row_whose_logits_are_no_numbers_leaves_its_neighbours_alone(
    number: float, top_p: float
) -> None:
    logits = torch.cat([torch.full((1, 700), number), torch.eye(1, 700) * 99])
    lost, kept = choose(logits, [Sampling(1, top_p, 1), Sampling(1, top_p, 1)])
    assert 0 <= lost < 700
    assert kept == 0


def test_a_draw_finds_its_token_wherever_in_a_large_vocabulary_it_stands() -> None:
    shares = {10: 0.2, 300: 0.3, 301: 0.1, 699: 0.4}
    logits = torch.full((1, 700), -torch.inf)
    for token, share in shares.items():
        logits[0, token] = math.log(share)
    for seed in range(50):
        number, wanted = random.Random(seed).random(), -1
        for token, share in shares.items():  # in the order of their numbers
            wanted = token
            number -= share
            if number < 0:
                break
        assert choose(logits, [Sampling(1, 1, seed)]) == [wanted]


def test_a_seed_repeats_and_another_seed_does_not() -> None:
    logits = torch.zeros(1, 50)

    def draws(seed: int | None) -> list[int]:
        setting = Sampling(1.0, 1.0, seed)
        return [choose(logits, [setting])[0] for _ in range(20)]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)
    assert draws(None) != draws(None)
    generator = random.Random(3)
    assert draws(3) == [int(generator.random() * 50) for _ in range(20)]


def test_a_row_draws_the_same_whoever_stands_beside_it() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    alone, among = Sampling(0.8, 0.9, 11), Sampling(0.8, 0.9, 11)
    others = [Sampling(1.0, 1.0, 1), Sampling(0, 1, None), Sampling(2, 0.5, 2), Sampling(1, 1, 3)]
    for _ in range(10):
        crowd = choose(logits, [*others[:2], among, *others[2:]])
        assert choose(logits[2:3], [alone]) == [crowd[2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1e-9, 1e-300])
def test_a_temperature_near_zero_does_not_overflow(temperature: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[-1e4, 3e4, 2.9e4, 0.0]], dtype=dtype)
    for top_p in (1.0, 0.5):
        assert _shares(logits, temperature, top_p, 20) == {1: 1.0}


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    for top_p in (1.0, 0.999):
        assert _shares(logits, 1.0, top_p, 500).keys() == {1, 3}
