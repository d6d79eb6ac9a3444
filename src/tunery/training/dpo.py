"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): answers in pairs.

The reference is the policy as training starts from it, be that the base alone or a tuned model: its
log-probabilities are computed once, before the first step, and kept with every snapshot.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tunery.datasets.batches import Example
from tunery.model.base import BaseNetwork
from tunery.training.losses import token_log_probabilities
from tunery.training.objective import BatchLoss, Examples, Sums
from tunery.training.packing import pack

_REFERENCE = "reference.log_probabilities"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one conversation, each with the whole of it.

    `reference` holds both answers' log-probabilities before training, [2]: NaN until they are
    known. It is a view of those of all pairs: what is written into it stays.
    """

    chosen: Example
    rejected: Example
    reference: Tensor

    @property
    def is_learned(self) -> bool:
        """Return whether the cut has left something of both answers."""
        return bool(self.chosen.learned and self.rejected.learned)


class Pairs:
    """The pairs of a file, each read when it is asked for.

    In memory are a length and two references a pair.
    """

    def __init__(self, answers: Examples[Example]) -> None:
        """Of `answers` every second one is the rejected one, of the pair of the one before it."""
        self._answers = answers
        self.lengths = array("I", map(add, answers.lengths[::2], answers.lengths[1::2]))
        """How many tokens both answers have, each with the whole conversation before it."""
        self.references = torch.full((len(self.lengths), 2), math.nan, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, place: int) -> Pair:
        return Pair(self._answers[2 * place], self._answers[2 * place + 1], self.references[place])


class Scored(NamedTuple):
    """The log-probability of each answer, [S]; and of its tokens, how many were first choices."""

    log_probabilities: Tensor
    correct: Tensor


def preference_loss(
    chosen_P: Tensor, rejected_P: Tensor, reference_P2: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Return each pair's loss, and the rewards of its answers, [P, 2].

    -log sigmoid(beta * ((chosen - its reference) - (rejected - its reference))), all of them
    log-probabilities of whole answers in nats: eq. 7. A reward is beta times one of the inner
    differences: section 5.
    """
    rewards_P2 = beta * (torch.stack([chosen_P, rejected_P], 1) - reference_P2)
    return -F.logsigmoid(rewards_P2[:, 0] - rewards_P2[:, 1]), rewards_P2


def score_answers(network: BaseNetwork, examples: Sequence[Example]) -> Scored:
    """Return log p of each example's learned tokens, all examples in one packed pass."""
    none = torch.zeros(len(examples), dtype=torch.int64, device=network.device)
    packed = pack(examples, network.dtype, network.device)
    if packed is None:
        return Scored(none.double(), none)
    hidden, operations = packed.hidden(network), network.decoder.operations
    scores = token_log_probabilities(hidden, network.head.weight, packed.targets, operations)
    totals = scores.log_probabilities.new_zeros(len(examples))
    return Scored(
        totals.index_add(0, packed.owners, scores.log_probabilities),
        none.index_add(0, packed.owners, scores.correct.long()),
    )


class Preferences:
    """The method `dpo` for the loop."""

    is_relative = True

    def __init__(self, network: BaseNetwork, beta: float) -> None:
        self._network, self._beta = network, beta
        self._files: list[Pairs] = []

    def examples(self, sides: Examples[Example]) -> Pairs:
        """Return a pair for each line of a file."""
        self._files.append(Pairs(sides))
        return self._files[-1]

    def computed_tokens(self, example: Pair) -> int:
        """Return the tokens of both answers, each with the whole conversation before it."""
        return len(example.chosen.token_ids) + len(example.rejected.token_ids)

    def billed_tokens(self, examples: Examples[Pair]) -> int:
        """Return the tokens of the conversations, each once, and of both answers."""
        billed = 0
        for place in range(len(examples)):
            pair = examples[place]
            mask = pair.rejected.supervised
            conversation = mask.index(True) if pair.rejected.learned else len(mask)
            billed += self.computed_tokens(pair) - conversation
        return billed

    def units(self, batch: Sequence[Pair]) -> int:
        """Return the number of pairs that are learned."""
        return len(_learned(batch))

    def prepare(self, examples: Sequence[Pair]) -> None:
        """Note how likely the answers are before training."""
        with torch.no_grad():
            found = score_answers(self._network, _answers(examples)).log_probabilities
        for pair, reference in zip(examples, found.double().view(-1, 2), strict=True):
            pair.reference.copy_(reference)

    def kept(self) -> dict[str, Tensor]:
        """Return the references of all pairs, [P, 2]."""
        return {_REFERENCE: torch.cat([file.references for file in self._files])}

    def take_up(self, kept: Mapping[str, Tensor]) -> None:
        """Note the references of all pairs."""
        sizes = [len(file) for file in self._files]
        parts: tuple[Tensor, ...] = torch.split(kept[_REFERENCE], sizes)
        for file, part in zip(self._files, parts, strict=True):
            file.references.copy_(part)

    def loss(self, batch: Sequence[Pair]) -> BatchLoss | None:
        """Return the mean loss of the learned pairs, all answers computed side by side."""
        batch = _learned(batch)
        if not batch:
            return None
        scored = score_answers(self._network, _answers(batch))
        chosen, rejected = scored.log_probabilities.view(-1, 2).unbind(1)
        references = _references(batch).to(chosen.device)
        losses, rewards = preference_loss(chosen, rejected, references, self._beta)
        rewards = rewards.detach()
        return BatchLoss(
            losses.mean(),
            Sums(
                units=len(batch),
                loss=float(losses.detach().sum()),
                tokens=sum(pair.chosen.learned for pair in batch),
                nll=-float(chosen.detach().sum()),
                correct=int(scored.correct[::2].sum()),
                pairs=len(batch),
                chosen_reward=float(rewards[:, 0].sum()),
                rejected_reward=float(rewards[:, 1].sum()),
                won=int((rewards[:, 0] > rewards[:, 1]).sum()),
            ),
        )


def _learned(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.is_learned]


def _answers(pairs: Sequence[Pair]) -> list[Example]:
    return [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]


def _references(pairs: Sequence[Pair]) -> Tensor:
    """Return the references of prepared pairs, [P, 2]."""
    known = torch.stack([pair.reference for pair in pairs])
    if known.isnan().any():
        raise ValueError("a pair was not prepared: its reference is not known")
    return known
