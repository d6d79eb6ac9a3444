"""What a task is. Knows no model and no trainer."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """A question, an answer that is right, and what the judge looks for in another one.

    Questions of one wording, or of nearly one, have the same `group`: a model is right on most of
    them or on few, so that they count as less than as many of their own.
    """

    question: str
    answer: str
    wanted: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """Something that a base does badly and a tuned model is to do well.

    `train` and `test` make their items from a seed: no question of one is a question of the other,
    whatever the seeds, and what is asked for is worded otherwise, or is about something else.
    """

    name: str
    about: str
    prompt: str  # the system prompt that is trained with, and that the tuned model gets
    instructions: str  # the longer one that tells the base all that there is to know
    answer_tokens: int  # no right answer is longer
    train: Callable[[int], list[Item]]
    test: Callable[[int], list[Item]]
    judge: Callable[[Item, str], bool]


def distinct(make: Callable[[int], Item], count: int) -> list[Item]:
    """Return `count` items with different questions; `make` gets the place of the one to be made.

    Raises ValueError where a place's questions run out: after 1,000 that were all there before.
    """
    items: list[Item] = []
    seen: set[str] = set()
    for place in range(count):
        for _ in range(1000):
            item = make(place)
            if item.question not in seen:
                break
        else:
            raise ValueError(f"no new question for item {place} of {count}; make fewer")
        seen.add(item.question)
        items.append(item)
    return items


def pick(random_: random.Random, choices: Sequence[str]) -> str:
    """Return one of them."""
    return random_.choice(choices)
