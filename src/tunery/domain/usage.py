"""What was used and what it costs."""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum

from tunery.domain.models import Prices

MILLION = Decimal(1_000_000)
BATCH_FACTOR = Decimal("0.5")  # what a batch pays of an answer's price


class UsageKind(StrEnum):
    """What tokens were used for."""

    TRAINING = "training"
    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One line of the ledger; `request_id` makes it count once.

    `cost_nanodollars` is an integer, so that sums are exact: a dollar is 10^9 of them.
    """

    request_id: str
    kind: UsageKind
    model: str
    base: str
    key_id: str | None
    end_user: str | None
    input_tokens: int
    output_tokens: int
    cost_nanodollars: int
    batch: bool = False


def nanodollars(tokens: int, dollars_per_million: Decimal) -> int:
    """Return the price of `tokens`, rounded half to even to a nanodollar."""
    exact = Decimal(tokens) * dollars_per_million / MILLION * Decimal(10**9)
    return int(exact.to_integral_value(ROUND_HALF_EVEN))


def chat_cost(
    prices: Prices, *, tuned: bool, input_tokens: int, output_tokens: int, batch: bool = False
) -> int:
    """Return what an answer costs, in nanodollars: half of it as a line of a batch."""
    factor = BATCH_FACTOR if batch else Decimal(1)
    price_in = (prices.tuned_input if tuned else prices.input) * factor
    price_out = (prices.tuned_output if tuned else prices.output) * factor
    return nanodollars(input_tokens, price_in) + nanodollars(output_tokens, price_out)


def embedding_cost(dollars_per_million: Decimal, tokens: int, *, batch: bool = False) -> int:
    """Return what vectors cost, in nanodollars: half of it as a line of a batch."""
    return nanodollars(tokens, dollars_per_million * (BATCH_FACTOR if batch else Decimal(1)))
