"""Which examples share a step: a fixed order for a seed, with lengths alike in a batch."""

import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

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
) -> "EpochBatches":
    """Return the batches of an epoch as indexes: a function of its arguments and nothing else.

    Examples are shuffled, sorted by length within pools of `_POOL_BATCHES` batches so that little
    is padded, cut into batches, and the batches are shuffled.
    """
    generator = random.Random(f"{seed}/{epoch}")  # noqa: S311 - an order, not a secret
    examples = array("I", range(len(lengths)))
    generator.shuffle(examples)
    pool = batch_size * _POOL_BATCHES
    for start in range(0, len(examples), pool):
        members = sorted(examples[start : start + pool], key=lambda index: lengths[index])
        examples[start : start + pool] = array("I", members)
    batches = array("I", range(steps_per_epoch(len(examples), batch_size)))
    generator.shuffle(batches)
    return EpochBatches(examples, batches, batch_size)


class EpochBatches(Sequence[list[int]]):
    """The batches of an epoch, in order, each made when it is asked for.

    Takes four bytes an example and four a batch: a file may have millions of lines.
    """

    def __init__(self, examples: Sequence[int], batches: Sequence[int], batch_size: int) -> None:
        """`examples` stand batch by batch; `batches` says in which order those are taken."""
        self._examples, self._batches, self._batch_size = examples, batches, batch_size

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, place: int) -> list[int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[list[int]]: ...
    def __getitem__(self, place: int | slice) -> list[int] | list[list[int]]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        start = self._batches[place] * self._batch_size
        return list(self._examples[start : start + self._batch_size])


def micro_batches(
    batch: Iterable[E], max_tokens: int, tokens: Callable[[E], int]
) -> Iterator[list[E]]:
    """Cut a batch into parts of at most `max_tokens` tokens; a longer example stands alone."""
    part: list[E] = []
    room = max_tokens
    for example in batch:
        size = tokens(example)
        if part and size > room:
            yield part
            part, room = [], max_tokens
        part.append(example)
        room -= size
    if part:
        yield part
