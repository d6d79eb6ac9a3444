"""Which examples share a step: a fixed order for a seed, with lengths alike in a batch."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

E = TypeVar("E")

_POOL_BATCHES = 16  # lengths are sorted within this many batches' worth of shuffled examples


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids and, for each position but the last, whether the next token is learned."""

    token_ids: list[int]
    supervised: list[bool]  # of the token itself, as rendered

    @property
    def learned(self) -> int:
        """Return how many tokens give a loss: the first token of all has none before it."""
        return sum(self.supervised[1:])


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return how many batches an epoch has."""
    return -(-examples // batch_size)


def epoch_batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int
) -> list[list[int]]:
    """Return the batches of an epoch as indexes: a function of its arguments and nothing else.

    Examples are shuffled, sorted by length within pools of `_POOL_BATCHES` batches so that little
    is padded, cut into batches, and the batches are shuffled.
    """
    generator = random.Random(f"{seed}/{epoch}")  # noqa: S311 - an order, not a secret
    order = list(range(len(lengths)))
    generator.shuffle(order)
    pool = batch_size * _POOL_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        members = sorted(order[start : start + pool], key=lambda index: lengths[index])
        batches += [members[i : i + batch_size] for i in range(0, len(members), batch_size)]
    generator.shuffle(batches)
    return batches


def micro_batches(batch: Sequence[E], max_tokens: int, tokens: Callable[[E], int]) -> list[list[E]]:
    """Cut a batch into parts of at most `max_tokens` tokens; a longer example stands alone."""
    parts: list[list[E]] = []
    room = 0
    for example in batch:
        size = tokens(example)
        if not parts or size > room:
            parts.append([])
            room = max_tokens
        parts[-1].append(example)
        room -= size
    return parts
