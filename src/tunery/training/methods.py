"""The methods by name, and the supervised one for the loop."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tunery.datasets.batches import Example
from tunery.domain.jobs import TrainingMethod
from tunery.domain.ports.training import TrainingRun
from tunery.model.base import BaseNetwork
from tunery.training.dpo import Preferences
from tunery.training.objective import BatchLoss, Examples, Objective, Sums
from tunery.training.sft import batch_loss


def objective_of(run: TrainingRun, network: BaseNetwork) -> Objective[Any]:
    """Return the method of a run."""
    if run.method is TrainingMethod.DPO:
        beta = run.hyperparameters.beta
        if beta is None:
            raise ValueError("a run of the method 'dpo' needs a beta; this one has none")
        return Preferences(network, beta)
    return Supervised(network)


class Supervised:
    """The method `supervised` for the loop: every learned token weighs the same."""

    is_relative = False

    def __init__(self, network: BaseNetwork) -> None:
        self._network = network

    def examples(self, sides: Examples[Example]) -> Examples[Example]:
        """Return an example for each line."""
        return sides

    def computed_tokens(self, example: Example) -> int:
        """Return the example's tokens."""
        return len(example.token_ids)

    def billed_tokens(self, examples: Examples[Example]) -> int:
        """Return the examples' tokens."""
        return sum(examples.lengths)

    def units(self, batch: Sequence[Example]) -> int:
        """Return the number of learned tokens."""
        return sum(example.learned for example in batch)

    def prepare(self, examples: Sequence[Example]) -> None:
        """Do nothing: the loss is of the weights as they are."""

    def kept(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Do nothing."""

    def loss(self, batch: Sequence[Example]) -> BatchLoss | None:
        """Return the mean loss over the learned tokens."""
        found = batch_loss(self._network, batch)
        if found is None:
            return None
        tokens = self.units(batch)
        total = float(found.mean.detach()) * tokens
        return BatchLoss(
            found.mean,
            Sums(units=tokens, loss=total, tokens=tokens, nll=total, correct=found.correct),
        )
