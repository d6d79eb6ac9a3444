"""One answer in the making, or one text being scored. Knows neither network nor cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tunery.datasets.text import TextStream
from tunery.domain.errors import TuneryError
from tunery.domain.ports.engine import Delta, TokenLogprob
from tunery.engine.sampling import Sampling
from tunery.engine.slots import Owner


@dataclass(slots=True, eq=False)
class Row:
    """One answer in the making, or one text being scored.

    `on_delta` and `on_end` are called on the scheduler's thread. A row with `scores` makes no
    token: it collects the log-probability of each token of its prompt. A row without a tenant is
    the service's own, and shares nothing.
    """

    prompt_ids: Sequence[int]
    adapter: str | None
    max_tokens: int
    sampling: Sampling
    text: TextStream | None
    on_delta: Callable[[Delta], None]
    on_end: Callable[[TuneryError | None], None]
    scores: list[float] | None = None
    tenant: str = ""
    cancelled: bool = False
    place: int = -1
    slot: int = -1
    computed: int = 0  # tokens whose keys and values are in the slot
    cached: int = 0  # tokens of the prompt that had been computed for another row
    parked: bool = False  # whether it has been in a slot before
    text_ids: bytes = b""  # prompt and answer, packed, as they were when it took its slot
    leader: "Row | None" = None  # computes the first `shared` tokens of this row's text too
    shared: int = 0
    made: list[int] = field(default_factory=list)
    told: int = 0  # tokens whose log-probabilities have been given out
    untold: list[TokenLogprob] = field(default_factory=list)

    @property
    def decodes(self) -> bool:
        """Whether the prompt is computed and the row makes one token a step."""
        return bool(self.made) and self.left == 1

    @property
    def tokens(self) -> int:
        """How many tokens prompt and answer have."""
        return len(self.prompt_ids) + len(self.made)

    @property
    def left(self) -> int:
        """How many of them are not computed."""
        return self.tokens - self.computed

    @property
    def owner(self) -> Owner | None:
        """Whose the computed tokens are."""
        return (self.tenant, self.adapter) if self.tenant else None

    @property
    def most_reused(self) -> int:
        """How many tokens need not be computed: the last one's logits are wanted, or all."""
        return self.tokens - 1 if self.scores is None else 0

    def ids(self, first: int, count: int) -> Sequence[int]:
        """Return tokens of prompt and answer."""
        if first + count <= len(self.prompt_ids):
            return self.prompt_ids[first : first + count]
        return [*self.prompt_ids, *self.made][first : first + count]

    def tell(self) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities that are due: of the tokens whose text is given out."""
        if self.text is None or not self.untold:
            return ()
        due = tuple(self.untold[: self.text.delivered - self.told])
        del self.untold[: len(due)]
        self.told += len(due)
        return due
