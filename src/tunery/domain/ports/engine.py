"""What answers: token ids in, text and token counts out."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunery.domain.jobs import Adapter

FinishReason = Literal["stop", "length"]
INVALID_GRAMMAR = "invalid_grammar"  # the code of every error that a grammar is the cause of


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to make.

    `tenant` is whose it is: tenants take turns, and nothing computed for one is used for another.
    `base_digest` names the base it must be made with: what serves another one refuses. `stop`
    strings end the answer and are not part of it. `seed` makes sampling repeatable. A temperature
    of 0 takes the likeliest token.

    `logit_bias` (token id, -100..100; an id at most once) is added to the logits of its tokens at
    every step. The penalties (-2..2) lower the logit of a token that stands c > 0 times in the
    answer so far by c * frequency_penalty + presence_penalty; the prompt does not count.
    `top_logprobs` asks for log-probabilities: those of the tokens made and of that many (0..20) of
    the likeliest ones at each place. None asks for none.

    `grammar`, in llguidance's dialect of Lark, is what the answer's text follows from its first
    character to its end; None leaves it free.
    """

    prompt_ids: Sequence[int]
    base_digest: str
    adapter: Adapter | None
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_logprobs: int | None = None
    grammar: str | None = None
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token of the answer was, and the likeliest tokens (text, bytes, log p) there.

    Natural logarithms of the model's distribution after bias, penalties and grammar, before
    temperature and top_p: what a grammar forces has log p 0. -9999 stands for what is lower. `top`
    is in falling order, has the token itself in it where it is among the likeliest, and nothing
    that the grammar forbids: it may be shorter than was asked.

    `token_bytes` is what the token adds to the answer's UTF-8 bytes: maybe a part of a character,
    and nothing for a special token. `token` is their text, a lone byte of a character written as
    \\xNN, and for a special token its name.
    """

    token: str
    token_bytes: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer: new text (may be empty), tokens made so far, and why it ended.

    `logprobs`, where they were asked for, tell of the tokens in order and each once, in the piece
    that ends their text or a later one; a token of which nothing is in the answer (the one that
    ended it, or one that a stop string cut off whole) is not told of. `cached_tokens` of the prompt
    had been computed before, for the same tenant and model; every piece has the same number.
    """

    text: str
    completion_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """What the engine holds and does; loads and evictions are counted since its start."""

    base_digest: str
    adapters_resident: int
    rows_active: int
    rows_waiting: int
    adapter_loads: int = 0
    adapter_evictions: int = 0


class Engine(Protocol):
    """Bases, and any number of adapters of each. Closing the iterator cancels the generation."""

    def version(self, base_digest: str) -> str:
        """Return what computes a base's answers, and in which arithmetic.

        With its own version: `tunery-0.1.0-native-int8`.
        """

    def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """Yield the answer; raise Overloaded or Unavailable where none can be made.

        Raises InvalidRequest with the code INVALID_GRAMMAR where the grammar is at fault: it is
        none, or an answer on its way has come to where it is too complex to be followed.
        """

    async def score(
        self, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter | None
    ) -> list[list[float]]:
        """Return, for each sequence, log p of each token but the first given those before it.

        Natural logarithms; a sequence of n ids gives n - 1 numbers.
        """

    async def likelihoods(
        self,
        token_ids: Sequence[int],
        base_digest: str,
        adapter: Adapter | None,
        top: int,
        *,
        tenant: str,
    ) -> list[TokenLogprob]:
        """Return how likely each token but the first is, with `top` (0..20) of the likeliest.

        `tenant` is whose text it is, as in a Generation.
        """

    async def load(self, adapter: Adapter, base_digest: str) -> None:
        """Make `adapter` resident, so that its first request need not wait for it."""

    async def unload(self, adapter: Adapter, base_digest: str) -> None:
        """Let go of `adapter` once no request uses it."""

    async def close(self) -> None:
        """Close every connection; nothing is asked after it."""

    async def health(self) -> EngineHealth:
        """Return the engine's state; raise Unavailable where it does not answer."""
