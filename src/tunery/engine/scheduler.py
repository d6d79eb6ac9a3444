"""Continuous batching: one step after another, each with whatever rows there are.

A step computes one token for every row that decodes and a piece of the prompts that wait, base and
tuned rows together. Tenants take turns, and share what a step computes of prompts. What was
computed of a text is used for another one that begins alike, of the same tenant and model only: the
numbers are those of computing it afresh: natively in eight bits to the bit, else up to the rounding
of products of another shape (1e-5 in float32; in bfloat16 the last bits, as between two batches).

All of it runs on the one thread that calls `run`; other threads only put commands into the inbox,
and hear of results through the callbacks they gave.
"""

import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tunery.datasets.grammars import refusal
from tunery.datasets.text import TextStream
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import Overloaded, TuneryError
from tunery.domain.ports.engine import Delta, TokenLogprob
from tunery.engine.adapters import AdapterStack
from tunery.engine.pace import Pace
from tunery.engine.row import Row
from tunery.engine.sampling import Likelihood, Sampling, likelihoods, sample
from tunery.engine.seats import Limits, Seats
from tunery.engine.slots import Slots
from tunery.engine.waiting import FairQueue, divided, fair_shares
from tunery.model.base import BaseNetwork
from tunery.model.cached import CachedLayout, SlotCache
from tunery.model.lora import Packed, packed

Head = Callable[[Tensor], Tensor]
_MEASURED = 3  # steps, of which the quickest counts


class NotResident(TuneryError):
    """The adapter is not in memory: its files are to be sent first."""


class Scheduler:
    """Owns the network, the cache and the rows.

    Raises TuneryError where the bound on the cache's memory holds no text of the longest length.
    """

    def __init__(
        self,
        network: BaseNetwork,
        adapters: AdapterStack,
        tokenizer: TextTokenizer,
        limits: Limits,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_step` is called before each step, on the thread that computes."""
        self._network = network
        self.adapters = adapters
        self._tokenizer = tokenizer
        self._limits = limits
        self._before_step = before_step
        self._head: Head = packed(network.head.weight, network.head.bias)
        slots = limits.rows + 1 + limits.rows // 4  # what is kept outlives a full house
        self._cache = SlotCache(
            network.layers,
            slots,
            network.key_value_heads,
            limits.context_tokens,
            network.head_size,
            network.dtype,
        )
        self._pace = Pace(limits.prefill_tokens, limits.step_s)
        self._waiting: FairQueue[Row] = FairQueue(limits.queue)
        self._seats = Seats(self._waiting, Slots(self._cache, slots), limits)
        self._active = self._seats.rows
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
        """Queue a row; raise NotResident or Overloaded.

        Where the queue is full, the newest row of the tenant with the most may end with Overloaded
        in its stead.
        """
        if row.adapter is not None:
            place = self.adapters.acquire(row.adapter)
            if place is None:
                raise NotResident("The adapter is not in memory.")
            row.place = place
        try:
            lost = self._waiting.put(row.tenant, row, len(row.prompt_ids))
        except Overloaded:
            self._let_go(row)
            raise
        if lost is not None:
            self._let_go(lost)
            lost.on_end(Overloaded("The engine's queue is full; try again."))

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

    def native_head(self, *, eight_bits: bool) -> Head:
        """Return the output layer in native operations, which take float32."""
        if not isinstance(self._head, Packed):
            raise TypeError("The output layer is not packed, or native already.")
        head: Head = torch.classes.tunery.Head(*self._head.tensors(), eight_bits).product
        return head

    def use_head(self, head: Head) -> None:
        """Compute the output layer so from now on; the decoder has become native before."""
        self._head = head
        self._measure()

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
        self._measure()

    def _measure(self) -> None:
        """Tell the pace what a step costs that computes next to nothing: one row, for nobody.

        What it has learned before is forgotten: it was another arithmetic's, or the warming up's.
        """
        seconds = []
        for _ in range(_MEASURED):
            began = time.perf_counter()
            layout = CachedLayout(self._cache, [], [], [], padding=1)
            self.adapters.rows.select([-1])
            with torch.inference_mode():
                self._head(self._network.hidden(torch.tensor([0]), layout))
            seconds.append(time.perf_counter() - began)
        self._pace = Pace(self._limits.prefill_tokens, self._limits.step_s, min(seconds))

    def step(self) -> None:
        """Compute one step; a failure ends the rows in it, and only those."""
        self._drop_cancelled()
        self._seats.fill()
        if not self._active:
            return
        self._before_step()
        try:
            with torch.inference_mode():
                self._compute()
        except Exception as error:  # this thread serves everybody: it must live on
            for row in list(self._active.values()):
                self._end(row, TuneryError(f"The engine failed: {error}", code="engine_error"))

    def _compute(self) -> None:
        began = time.perf_counter()
        self._seats.make_room()
        decoding = sorted((r for r in self._active.values() if r.decodes), key=lambda r: r.slot)
        pieces = self._pieces(len(decoding))
        ids = [row.made[-1] for row in decoding]
        positions = [row.computed for row in decoding]
        places = [row.place for row in decoding]
        for row, count in pieces:
            ids += row.ids(row.computed, count)
            positions += range(row.computed, row.computed + count)
            places += [row.place] * count
        together = self._network.round_rows
        padding = -len(ids) % together if len(ids) > together else 0
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
        computed = sum(count for _, count in pieces)
        self._pace.took(time.perf_counter() - began, len(decoding), computed)

    def _pieces(self, decoding: int) -> list[tuple[Row, int]]:
        """Return which prompts go on in this step, and by how many tokens; oldest first.

        Tenants share the step's tokens, and so do a tenant's own: a short prompt waits for no long
        one.
        """
        budget = self._pace.budget(decoding)
        rows = [
            row for row in self._active.values() if not row.decodes and not self._seats.waits(row)
        ]
        by_tenant: dict[str, list[Row]] = {}
        for row in rows:
            by_tenant.setdefault(row.tenant, []).append(row)
        wanted = {tenant: sum(row.left for row in own) for tenant, own in by_tenant.items()}
        shares = fair_shares(wanted, budget)
        counts = {
            row.slot: count
            for tenant, own in by_tenant.items()
            for row, count in zip(
                own, divided([row.left for row in own], shares[tenant]), strict=True
            )
        }
        return [(row, counts[row.slot]) for row in rows if counts[row.slot]]

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
            if not row.left:
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
                self._waiting.count(row.tenant, 1)
                grammar = row.sampling.grammar
                if grammar is not None and grammar.failure is not None:
                    self._end(row, refusal(grammar.failure))
                    continue
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
        elif (complete := _complete(row)) or count >= row.max_tokens:
            text += row.text.close()
            ended = complete or self._stopped(row.text)
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
            self._seats.leave(row, keep=error is None)
            self._waiting.end(row.tenant)
        else:
            self._waiting.remove(row.tenant, row)
        self._let_go(row)
        row.on_end(error)

    def _let_go(self, row: Row) -> None:
        if row.adapter is not None:
            self.adapters.release(row.adapter)


def _complete(row: Row) -> bool:
    """Return whether the row's grammar takes nothing more."""
    return row.sampling.grammar is not None and row.sampling.grammar.complete


def idle_callback(*_: Any) -> None:
    """Hear nothing: for rows whose results are read elsewhere."""
