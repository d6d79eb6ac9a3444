"""What training on a file would cost."""

from dataclasses import dataclass
from decimal import Decimal

from tunery.domain.files import LineFormat
from tunery.domain.hyperparameters import resolve
from tunery.domain.jobs import RequestedHyperparameters, TrainingMethod
from tunery.domain.models import BaseModel


@dataclass(frozen=True, slots=True)
class Estimate:
    """What training with automatic hyperparameters would cost.

    How long it takes is not known before it runs: the job says so after its first steps.
    """

    base: str
    method: str
    epochs: int
    batch_size: int
    steps: int
    billed_tokens: int
    price_usd: str


def estimate(
    base: BaseModel, line_format: LineFormat, examples: int, tokens: int
) -> Estimate | None:
    """Return what training on so many examples would cost; None where there are none."""
    if not examples:
        return None
    method = next(one for one in TrainingMethod if line_format in one.line_formats)
    requested = RequestedHyperparameters()
    chosen = resolve(requested, examples, method)
    billed = tokens * chosen.n_epochs
    price = Decimal(billed) * base.prices.training / 1_000_000
    steps = -(-examples // chosen.batch_size) * chosen.n_epochs
    return Estimate(
        base.name,
        str(method),
        chosen.n_epochs,
        chosen.batch_size,
        steps,
        billed,
        f"{price:.2f}",
    )
