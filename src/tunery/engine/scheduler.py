"""Continuous batching: one step after another, each with whatever rows there are.

A step computes one token for every row that decodes and a piece of the prompts that wait, base and
tuned rows together. All of it runs on the one thread that calls `run`; other threads only put
commands into the inbox, and hear of results through the callbacks they gave.
"""

import queue
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tunery.datasets.text import TextStream
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import Overloaded, TuneryError
from tunery.domain.ports.engine import Delta, TokenLogprob
from tunery.engine.adapters import AdapterStack
from tunery.engine.sampling import Likelihood, Sampling, likelihoods, sample
from tunery.model.attention import CachedLayout, SlotCache
from tunery.model.base import BaseNetwork
from tunery.model.lora import Packed, packed

_ROUND_ROWS = 8  # row counts come from a small set: oneDNN compiles a kernel for each


class NotResident(TuneryError):
    """The adapter is not in memory: its files are to be sent first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The scheduler's bounds."""

    rows: int
    context_tokens: int
    queue: int
    prefill_tokens: int
    prefill_tokens_busy: int


@dataclass(slots=True, eq=False)
class Row:
    """One answer in the making, or one text being scored.

    `on_delta` and `on_end` are called on the scheduler's thread. A row with `scores` makes no
    token: it collects the log-probability of each token of its prompt.
    """

    prompt_ids: Sequence[int]
    adapter: str | None
    max_tokens: int
    sampling: Sampling
    text: TextStream | None
    on_delta: Callable[[Delta], None]
    on_end: Callable[[TuneryError | None], None]
    scores: list[float] | None = None
    cancelled: bool = False
    place: int = -1
    slot: int = -1
    computed: int = 0  # tokens whose keys and values are in the slot
    made: list[int] = field(default_factory=list)
    told: int = 0  # tokens whose log-probabilities have been given out
    untold: list[TokenLogprob] = field(default_factory=list)

    @property
    def decodes(self) -> bool:
        """Whether the prompt is computed and the row makes one token a step."""
        return bool(self.made)

    def tell(self) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities that are due: of the tokens whose text is given out."""
        if self.text is None or not self.untold:
            return ()
        due = tuple(self.untold[: self.text.delivered - self.told])
        del self.untold[: len(due)]
        self.told += len(due)
        return due


class Scheduler:
    """Owns the network, the cache and the rows."""

    def __init__(
        self,
        network: BaseNetwork,
        adapters: AdapterStack,
        tokenizer: TextTokenizer,
        limits: Limits,
    ) -> None:
        self._network = network
        self.adapters = adapters
        self._tokenizer = tokenizer
        self._limits = limits
        self._head: Callable[[Tensor], Tensor] = packed(network.head.weight, network.head.bias)
        self._cache = SlotCache(
            network.layers,
            limits.rows,
            network.key_value_heads,
            limits.context_tokens,
            network.head_size,
            network.dtype,
        )
        self._free_slots = list(range(limits.rows))
        self._active: dict[int, Row] = {}
        self._waiting: deque[Row] = deque()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    # ---- from any thread

    def call(self, command: Callable[[], None]) -> None:
        """Have `command` run between two steps."""
        self._inbox.put(command)

    def call_in_turn(self, work: Callable[[], None]) -> None:
        """Have `work` run between two steps, and no other of its kind between the same two."""
        self._work.put(work)
        self._inbox.put(idle_callback)  # wakes the scheduler up

    def stop(self) -> None:
        """End `run` after the current step."""
        self._inbox.put(None)

    @property
    def active(self) -> int:
        """Return how many rows are being computed."""
        return len(self._active)

    @property
    def waiting(self) -> int:
        """Return how many rows wait for a slot."""
        return len(self._waiting)

    # ---- on the scheduler's thread

    def submit(self, row: Row) -> None:
        """Queue a row; raise NotResident or Overloaded."""
        if len(self._waiting) >= self._limits.queue:
            raise Overloaded("The engine's queue is full; try again.")
        if row.adapter is not None:
            place = self.adapters.acquire(row.adapter)
            if place is None:
                raise NotResident("The adapter is not in memory.")
            row.place = place
        self._waiting.append(row)

    def run(self) -> None:
        """Work until `stop`."""
        while True:
            idle = not self._active and not self._waiting and self._work.empty()
            try:
                while (command := self._inbox.get(block=idle)) is not None:
                    command()
                    idle = False
            except queue.Empty:
                if not self._work.empty():
                    self._work.get()()
                self.step()
                continue
            return

    def use_native_head(self, *, eight_bits: bool) -> None:
        """Compute the output layer with the native operations from now on."""
        if isinstance(self._head, Packed):
            self._head = torch.classes.tunery.Head(*self._head.tensors(), eight_bits).product

    def warm_up(self) -> None:
        """Compute one short text, so that the first request waits for no kernel to be compiled.

        Raises what the base's network raises where it cannot be computed with our attention.
        """
        ends: list[TuneryError | None] = []
        ids = [0] * 16
        row = Row(ids, None, 0, Sampling(0, 1, None), None, idle_callback, ends.append, scores=[])
        self.submit(row)
        while self._active or self._waiting:
            self.step()
        if ends[0] is not None:
            raise ends[0]

    def step(self) -> None:
        """Compute one step; a failure ends the rows in it, and only those."""
        self._drop_cancelled()
        while self._waiting and self._free_slots:
            row = self._waiting.popleft()
            row.slot = self._free_slots.pop(0)
            self._active[row.slot] = row
        if not self._active:
            return
        try:
            with torch.inference_mode():
                self._compute()
        except Exception as error:  # this thread serves everybody: it must live on
            for row in list(self._active.values()):
                self._end(row, TuneryError(f"The engine failed: {error}", code="engine_error"))

    def _compute(self) -> None:
        decoding = sorted((r for r in self._active.values() if r.decodes), key=lambda r: r.slot)
        pieces = self._pieces(bool(decoding))
        ids = [row.made[-1] for row in decoding]
        positions = [row.computed for row in decoding]
        places = [row.place for row in decoding]
        for row, count in pieces:
            ids += row.prompt_ids[row.computed : row.computed + count]
            positions += range(row.computed, row.computed + count)
            places += [row.place] * count
        padding = -len(ids) % _ROUND_ROWS if len(ids) > _ROUND_ROWS else 0
        layout = CachedLayout(
            self._cache,
            [row.slot for row in decoding],
            [(row.slot, count) for row, count in pieces],
            positions,
            padding,
        )
        # Padding takes the last row's adapter: one adapter for all rows is computed faster.
        self.adapters.rows.select(places + places[-1:] * padding)
        hidden = self._network.hidden(torch.tensor(ids + [0] * padding), layout)
        self._finish_step(decoding, pieces, hidden)

    def _pieces(self, busy: bool) -> list[tuple[Row, int]]:
        """Return which prompts go on in this step, and by how many tokens; oldest first."""
        budget = self._limits.prefill_tokens_busy if busy else self._limits.prefill_tokens
        pieces = []
        for row in self._active.values():
            if budget > 0 and not row.decodes:
                count = min(budget, len(row.prompt_ids) - row.computed)
                pieces.append((row, count))
                budget -= count
        return pieces

    def _finish_step(
        self, decoding: Sequence[Row], pieces: Sequence[tuple[Row, int]], hidden: Tensor
    ) -> None:
        rows: list[Row] = list(decoding)
        wanted = list(range(len(decoding)))
        first = len(decoding)
        for row in decoding:
            row.computed += 1
        for row, count in pieces:
            if row.scores is not None:
                self._score(row, count, hidden[first : first + count])
            row.computed += count
            if row.computed == len(row.prompt_ids):
                if row.scores is None:
                    rows.append(row)
                    wanted.append(first + count - 1)
                else:
                    self._end(row, None)
            first += count
        if rows:
            logits = self._head(hidden[torch.tensor(wanted)])
            found = sample(logits, [row.sampling for row in rows])
            for row, (token, likelihood) in zip(rows, found, strict=True):
                if likelihood is not None:
                    row.untold.append(self._token_logprob(token, likelihood))
                self._advance(row, token)

    def _score(self, row: Row, count: int, hidden: Tensor) -> None:
        """Add log p of the tokens that follow those of this piece."""
        assert row.scores is not None  # noqa: S101 - checked by the caller
        following = row.prompt_ids[row.computed + 1 : row.computed + count + 1]
        if following:
            logits = self._head(hidden[: len(following)]).float()
            chosen = logits.gather(1, torch.tensor(following)[:, None])[:, 0]
            row.scores += (chosen - torch.logsumexp(logits, -1)).tolist()
            asked = [row.sampling] * len(following)
            for token, likelihood in zip(
                following, likelihoods(logits, asked, following), strict=True
            ):
                if likelihood is not None:
                    row.untold.append(self._token_logprob(token, likelihood))

    def _token_logprob(self, token: int, likelihood: Likelihood) -> TokenLogprob:
        spell, data = self._tokenizer.token_id_text, self._tokenizer.token_id_bytes
        top = tuple((spell(other), data(other), value) for other, value in likelihood.top)
        return TokenLogprob(spell(token), data(token), likelihood.logprob, top)

    def _advance(self, row: Row, token: int) -> None:
        assert row.text is not None  # noqa: S101 - only rows that make text come here
        row.made.append(token)
        count = len(row.made)
        if token in self._tokenizer.eos_ids:
            text = row.text.close()
            row.on_delta(Delta(text, count, "stop", row.tell()))
            self._end(row, None)
            return
        text = row.text.add(token)
        if row.text.stopped:
            row.on_delta(Delta(text, count, "stop", row.tell()))
            self._end(row, None)
        elif count >= row.max_tokens:
            text += row.text.close()
            ended = self._stopped(row.text)
            row.on_delta(Delta(text, count, "stop" if ended else "length", row.tell()))
            self._end(row, None)
        else:
            row.on_delta(Delta(text, count, None, row.tell()))

    @staticmethod
    def _stopped(text: TextStream) -> bool:
        """Return whether closing the text has found a stop string."""
        return text.stopped

    def _drop_cancelled(self) -> None:
        for row in [*self._active.values(), *self._waiting]:
            if row.cancelled:
                self._end(row, None)

    def _end(self, row: Row, error: TuneryError | None) -> None:
        if row.slot >= 0:
            del self._active[row.slot]
            self._cache.clear(row.slot, len(row.prompt_ids) + len(row.made))
            self._free_slots.append(row.slot)
            self._free_slots.sort()  # low slots first: rows that decode stand side by side
        else:
            self._waiting.remove(row)
        if row.adapter is not None:
            self.adapters.release(row.adapter)
        row.on_end(error)


def idle_callback(*_: Any) -> None:
    """Hear nothing: for rows whose results are read elsewhere."""
