"""What tokens cost, in whole nanodollars."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import untimed
from tunery.domain.models import Prices
from tunery.domain.usage import chat_cost, embedding_cost, nanodollars


@pytest.mark.parametrize(
    ("tokens", "price", "expected"),
    [
        (0, "8", 0),
        (1, "8", 8_000),  # $8 a million is 8,000 nanodollars a token
        (1_000_000, "8", 8_000_000_000),
        (1_000, "0.15", 150_000),
        (1, "0.0005", 0),  # half a nanodollar: to even
        (3, "0.0005", 2),  # 1.5 to 2
        (5, "0.0005", 2),  # 2.5 to 2
        (7, "0.0005", 4),  # 3.5 to 4
    ],
)
def test_a_price_is_exact_and_rounded_half_to_even(tokens: int, price: str, expected: int) -> None:
    assert nanodollars(tokens, Decimal(price)) == expected


@untimed
@given(st.integers(0, 10**12), st.decimals("0", "1000", places=4))
def test_a_price_is_the_exact_fractions_rounding(tokens: int, price: Decimal) -> None:
    assert nanodollars(tokens, price) == round(Fraction(tokens) * Fraction(price) * 1000)


@pytest.mark.parametrize(("tuned", "expected"), [(False, 10 * 1_500 + 4 * 2_000), (True, 184_000)])
def test_an_answer_costs_its_prompt_and_its_tokens_at_the_models_prices(
    tuned: bool, expected: int
) -> None:
    prices = Prices(*map(Decimal, ("8", "1.5", "2", "12", "16")))
    assert chat_cost(prices, tuned=tuned, input_tokens=10, output_tokens=4) == expected


@pytest.mark.parametrize(("tuned", "expected"), [(False, 10 * 750 + 4 * 1_000), (True, 92_000)])
def test_a_batchs_answer_costs_half(tuned: bool, expected: int) -> None:
    prices = Prices(*map(Decimal, ("8", "1.5", "2", "12", "16")))
    cost = chat_cost(prices, tuned=tuned, input_tokens=10, output_tokens=4, batch=True)
    assert cost == expected


@pytest.mark.parametrize(("batch", "expected"), [(False, 140), (True, 70)])
def test_vectors_cost_their_tokens_and_half_of_it_in_a_batch(batch: bool, expected: int) -> None:
    assert embedding_cost(Decimal("0.02"), 7, batch=batch) == expected
