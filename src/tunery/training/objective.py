"""What the loop asks of a method of fine-tuning. It knows neither the loop nor any method."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, TypeVar

from torch import Tensor

from tunery.datasets.batches import Example

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Sums:
    """What batches add up to.

    The loss is summed over `units`: learned tokens, or pairs. `nll` and `correct` are sums over the
    `tokens` of the answers that are wanted: -log p in nats, and whether the model's first choice
    was right. Rewards are summed over pairs; `won` counts those whose chosen answer has the higher.
    """

    units: int = 0
    loss: float = 0.0
    tokens: int = 0
    nll: float = 0.0
    correct: int = 0
    pairs: int = 0
    chosen_reward: float = 0.0
    rejected_reward: float = 0.0
    won: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        """Return what both add up to."""
        return Sums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Sums)))

    def metrics(self, of: str) -> dict[str, Any]:
        """Return the means, under the names that a step's metrics of `of` have."""
        means = {
            f"{of}_loss": self.loss / max(1, self.units),
            f"{of}_mean_token_accuracy": self.correct / max(1, self.tokens),
        }
        if self.pairs:
            chosen, rejected = self.chosen_reward / self.pairs, self.rejected_reward / self.pairs
            means |= {
                f"{of}_chosen_reward": chosen,
                f"{of}_rejected_reward": rejected,
                f"{of}_reward_margin": chosen - rejected,
                f"{of}_reward_accuracy": self.won / self.pairs,
            }
        return means


class BatchLoss(NamedTuple):
    """The mean loss of a batch over `sums.units`, and its numbers."""

    mean: Tensor
    sums: Sums


class Examples(Protocol[E_co]):
    """A file's examples, each read when it is asked for."""

    @property
    def lengths(self) -> "array[int]":
        """Return how many tokens each is computed with."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> E_co: ...


class Objective(Protocol[E]):
    """A method: how a file's lines become examples, and what a batch of them costs."""

    @property
    def is_relative(self) -> bool:
        """Return whether examples have to be prepared before the first step."""

    def examples(self, sides: Examples[Example]) -> Examples[E]:
        """Return the examples of a file, of whose lines all sides were rendered.

        Called once for each file of a run, in an order that does not change.
        """

    def computed_tokens(self, example: E) -> int:
        """Return how many tokens an example is computed with."""

    def billed_tokens(self, examples: Examples[E]) -> int:
        """Return how many tokens a file has."""

    def units(self, batch: Sequence[E]) -> int:
        """Return what the batch's loss is a mean over; 0 where there is nothing to learn."""

    def prepare(self, examples: Sequence[E]) -> None:
        """Note what the loss needs of examples under the weights that training starts from."""

    def kept(self) -> dict[str, Tensor]:
        """Return what was noted of all files, to be kept with a snapshot."""

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Note what `kept` gave for the same files."""

    def loss(self, batch: Sequence[E]) -> BatchLoss | None:
        """Return the loss of a batch under base and adapter, or None where it has none."""
