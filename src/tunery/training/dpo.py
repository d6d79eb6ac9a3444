"""Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290): answers in pairs.

The reference is the policy as training starts from it, be that the base alone or a tuned model: its
log-probabilities are computed once, before the first step, and kept with every snapshot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tunery.datasets.batches import Example
from tunery.datasets.preferences import chats_of
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer
from tunery.model.attention import PackedLayout
from tunery.model.base import BaseNetwork
from tunery.training.data import rendered_example
from tunery.training.losses import token_log_probabilities
from tunery.training.objective import BatchLoss, Sums

_REFERENCE = "reference.log_probabilities"


@dataclass(slots=True)
class Pair:
    """Two answers to one conversation, each with the whole of it.

    `reference` holds both answers' log-probabilities before training, once they are known.
    """

    chosen: Example
    rejected: Example
    reference: tuple[float, float] | None = None


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
    token_ids: list[int] = []
    sources: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, example in enumerate(examples):
        start = len(token_ids)
        token_ids += example.token_ids
        for place in range(1, len(example.token_ids)):
            if example.supervised[place]:
                sources.append(start + place - 1)
                targets.append(example.token_ids[place])
                owners.append(number)
    layout = PackedLayout([len(example.token_ids) for example in examples], network.dtype)
    token_ids += [0] * layout.padding
    hidden = network.hidden(torch.tensor(token_ids), layout)
    scores = token_log_probabilities(
        hidden.index_select(0, torch.tensor(sources)), network.head.weight, torch.tensor(targets)
    )
    owner = torch.tensor(owners)
    none = torch.zeros(len(examples), dtype=torch.int64)
    return Scored(
        scores.log_probabilities.new_zeros(len(examples)).index_add(
            0, owner, scores.log_probabilities
        ),
        none.index_add(0, owner, scores.correct.long()),
    )


class Preferences:
    """The method `dpo` for the loop."""

    def __init__(self, network: BaseNetwork, renderer: ChatRenderer, beta: float) -> None:
        self._network, self._renderer, self._beta = network, renderer, beta

    def load(self, chunks: Iterable[bytes]) -> list[Pair]:
        """Return a pair for each line; what is too long is cut at the end."""
        pairs = []
        for line in lines(chunks):
            chosen, rejected = (
                rendered_example(self._renderer, chat, self._network.context_tokens)
                for chat in chats_of(parse(line))
            )
            pairs.append(Pair(chosen, rejected))
        return pairs

    def computed_tokens(self, example: Pair) -> int:
        """Return the tokens of both answers, each with the whole conversation before it."""
        return len(example.chosen.token_ids) + len(example.rejected.token_ids)

    def billed_tokens(self, example: Pair) -> int:
        """Return the tokens of the conversation, once, and of both answers."""
        return self.computed_tokens(example) - example.rejected.supervised.index(True)

    def units(self, batch: Sequence[Pair]) -> int:
        """Return the number of pairs."""
        return len(batch)

    def prepare(self, examples: Sequence[Pair]) -> None:
        """Note how likely the answers are before training."""
        with torch.no_grad():
            found = score_answers(self._network, _answers(examples)).log_probabilities
        self.take_up(examples, {_REFERENCE: found.double().view(-1, 2)})

    def kept(self, examples: Sequence[Pair]) -> dict[str, Tensor]:
        """Return the references of all pairs, [P, 2]."""
        return {_REFERENCE: _references(examples)}

    def take_up(self, examples: Sequence[Pair], kept: Mapping[str, Tensor]) -> None:
        """Note the references of all pairs."""
        for pair, (chosen, rejected) in zip(examples, kept[_REFERENCE].tolist(), strict=True):
            pair.reference = (chosen, rejected)

    def loss(self, batch: Sequence[Pair]) -> BatchLoss:
        """Return the mean loss of the pairs, both answers of each computed side by side."""
        scored = score_answers(self._network, _answers(batch))
        chosen, rejected = scored.log_probabilities.view(-1, 2).unbind(1)
        losses, rewards = preference_loss(chosen, rejected, _references(batch), self._beta)
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


def _answers(pairs: Sequence[Pair]) -> list[Example]:
    return [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]


def _references(pairs: Sequence[Pair]) -> Tensor:
    """Return the references of prepared pairs, [P, 2]."""
    known = [pair.reference for pair in pairs if pair.reference is not None]
    if len(known) != len(pairs):
        raise ValueError("a pair was not prepared: its reference is not known")
    return torch.tensor(known, dtype=torch.float64).view(-1, 2)
