"""The methods by name, and the supervised one for the loop."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from tunery.datasets.batches import Example
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.jobs import TrainingMethod
from tunery.domain.ports.training import TrainingRun
from tunery.model.base import BaseNetwork
from tunery.training.data import load_examples
from tunery.training.dpo import Preferences
from tunery.training.objective import BatchLoss, Objective, Sums
from tunery.training.sft import batch_loss


def objective_of(run: TrainingRun, network: BaseNetwork, renderer: ChatRenderer) -> Objective[Any]:
    """Return the method of a run."""
    if run.method is TrainingMethod.DPO:
        beta = run.hyperparameters.beta
        if beta is None:
            raise ValueError("a run of the method 'dpo' needs a beta; this one has none")
        return Preferences(network, renderer, beta)
    return Supervised(network, renderer)


class Supervised:
    """The method `supervised` for the loop: every learned token weighs the same."""

    def __init__(self, network: BaseNetwork, renderer: ChatRenderer) -> None:
        self._network, self._renderer = network, renderer

    def load(self, chunks: Iterable[bytes]) -> list[Example]:
        """Return an example for each line."""
        return load_examples(chunks, self._renderer, self._network.context_tokens)

    def computed_tokens(self, example: Example) -> int:
        """Return the example's tokens."""
        return len(example.token_ids)

    def billed_tokens(self, example: Example) -> int:
        """Return the example's tokens."""
        return len(example.token_ids)

    def units(self, batch: Sequence[Example]) -> int:
        """Return the number of learned tokens."""
        return sum(example.learned for example in batch)

    def prepare(self, examples: Sequence[Example]) -> None:
        """Do nothing: the loss is of the weights as they are."""

    def kept(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return nothing."""
        del examples
        return {}

    def take_up(self, examples: Sequence[Example], kept: Mapping[str, Tensor]) -> None:
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
