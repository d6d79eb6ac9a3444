"""Recorded prompts are put to an old and a new model, and the answers held against each other."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tunery.datasets.likeness import Likeness, likeness
from tunery.datasets.recorded import RecordedPrompt
from tunery.domain.errors import InvalidRequest, TuneryError

Ask = Callable[[Mapping[str, Any]], str]
"""Returns the answer to a body; raises TuneryError where there is none."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A prompt, the old and the new answer to it, and how alike they are; or why there is none."""

    prompt: RecordedPrompt
    old: str | None
    new: str | None
    likeness: Likeness | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """All prompts together: shares, from 0 to 1, of those that both have answered."""

    prompts: int
    compared: int
    failed: int
    exact: float
    normalized: float
    json_prompts: int  # those whose old answer is JSON
    json_equal: float  # of these
    token_f1: float  # in the mean


def replay(
    prompts: Iterable[RecordedPrompt], ask_old: Ask | None, ask_new: Ask | None, at_once: int
) -> Iterator[Replayed]:
    """Yield each prompt's comparison, in their order; `at_once` are under way together.

    Without `ask_old`, the recorded answer stands for the old one's: raises InvalidRequest at the
    first prompt that has none. Without `ask_new`, nothing is compared.
    """

    def one(prompt: RecordedPrompt) -> Replayed:
        old: str | None = prompt.answer
        try:
            if ask_old is not None:
                old = ask_old(prompt.body)
            if ask_new is None or old is None:
                return Replayed(prompt, old, None, None)
            new = ask_new(prompt.body)
        except TuneryError as error:
            return Replayed(prompt, old, None, None, error.message)
        return Replayed(prompt, old, new, likeness(old, new))

    def answered(prompt: RecordedPrompt) -> RecordedPrompt:
        if ask_old is None and prompt.answer is None:
            raise InvalidRequest(
                f"Prompt {prompt.number} has no recorded answer, and the old model is not asked;"
                " give --ask-old while it still answers."
            )
        return prompt

    asked = [answered(prompt) for prompt in prompts]
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(one, asked)


def agreement(replayed: Sequence[Replayed]) -> Agreement:
    """Return the sums."""
    found = [one.likeness for one in replayed if one.likeness is not None]
    as_json = [one.json_equal for one in found if one.json_equal is not None]

    def mean(values: Sequence[float]) -> float:
        return fmean(values) if values else 0.0

    return Agreement(
        prompts=len(replayed),
        compared=len(found),
        failed=sum(bool(one.error) for one in replayed),
        exact=mean([one.exact for one in found]),
        normalized=mean([one.normalized for one in found]),
        json_prompts=len(as_json),
        json_equal=mean(as_json),
        token_f1=mean([one.token_f1 for one in found]),
    )
