"""What answers: token ids in, text and token counts out."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunery.domain.jobs import Adapter

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to make.

    `base_digest` names the base it must be made with: an engine with another one refuses. `stop`
    strings end the answer and are not part of it. `seed` makes sampling repeatable. A temperature
    of 0 takes the likeliest token.
    """

    prompt_ids: Sequence[int]
    base_digest: str
    adapter: Adapter | None
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer: new text (may be empty), tokens made so far, and why it ended."""

    text: str
    completion_tokens: int
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """What the engine holds and does."""

    base_digest: str
    adapters_resident: int
    rows_active: int
    rows_waiting: int


class Engine(Protocol):
    """One base model, any number of adapters. Closing the iterator cancels the generation."""

    def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """Yield the answer; raise Overloaded or Unavailable where none can be made."""

    async def score(
        self, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter | None
    ) -> list[list[float]]:
        """Return, for each sequence, log p of each token but the first given those before it.

        Natural logarithms; a sequence of n ids gives n - 1 numbers.
        """

    async def load(self, adapter: Adapter) -> None:
        """Make `adapter` resident, so that its first request need not wait for it."""

    async def unload(self, adapter: Adapter) -> None:
        """Let go of `adapter` once no request uses it."""

    async def health(self) -> EngineHealth:
        """Return the engine's state; raise Unavailable where it does not answer."""
