"""The choices of one request: generated together, and settled once with what was really made."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import anyio

from tunery.datasets.heard import Heard
from tunery.domain.errors import InvalidRequest, NotFound, TuneryError, Unavailable
from tunery.domain.ports.engine import INVALID_GRAMMAR, Delta, FinishReason, TokenLogprob
from tunery.domain.tenants import Caller
from tunery.endpoints.parts import Parts
from tunery.services.answers import PreparedAnswer, ledger_line
from tunery.services.models import get_model

_AT_ONCE = 16  # choices of one request that are generated together: one caller is no crowd


@dataclass(slots=True)
class Made:
    """One choice as far as it has come."""

    text: str = ""
    completion_tokens: int = 0
    finish_reason: str | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    cached_tokens: int = 0

    def add(self, delta: Delta) -> None:
        """Take the next piece."""
        self.text += delta.text
        self.logprobs += delta.logprobs
        self.completion_tokens = delta.completion_tokens
        self.finish_reason = delta.finish_reason
        self.cached_tokens = delta.cached_tokens

    def as_delta(self) -> Delta:
        """Return all that was made as one piece."""
        reason: FinishReason = "length" if self.finish_reason == "length" else "stop"
        return Delta(self.text, self.completion_tokens, reason, tuple(self.logprobs))


AtFault = Callable[[InvalidRequest, str | None], InvalidRequest]
"""Returns a grammar's error as that of the field it came from: given the function, if any, whose
call the answer was in."""


class Generating:
    """Generates, keeps what was made, and writes the ledger however it ends."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        prepared: PreparedAnswer,
        at_fault: AtFault | None = None,
    ) -> None:
        self.prepared = prepared
        self._at_fault = at_fault
        self.made = [Made() for _ in prepared.generations]
        self._parts = parts
        self._caller = caller
        self._deltas = _merged([parts.engine.generate(one) for one in prepared.generations])
        self._first: tuple[int, Delta] | None = None
        self._settled = False

    @property
    def completion_tokens(self) -> int:
        """Return the tokens made so far, of all choices."""
        return sum(one.completion_tokens for one in self.made)

    @property
    def cached_tokens(self) -> int:
        """Return the prompts' tokens that had been computed before.

        Of the choices of one prompt, which is charged once, the least counts.
        """
        least: dict[tuple[int, ...], int] = {}
        for generation, made in zip(self.prepared.generations, self.made, strict=True):
            prompt = tuple(generation.prompt_ids)
            least[prompt] = min(made.cached_tokens, least.get(prompt, made.cached_tokens))
        return sum(least.values())

    @property
    def fingerprint(self) -> str:
        """Return which weights answer, and what computes them; the model's page says the same."""
        model = self.prepared.model
        return model.fingerprint(self._parts.engine.version(model.base.digest))

    async def start(self) -> None:
        """Wait for the first piece; raise what the engine refuses with."""
        try:
            self._first = await anext(self._deltas)
        except Unavailable as error:
            raise await self._deleted_or(error) from None
        except InvalidRequest as error:
            raise self._explained(error) from None

    async def pieces(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """Yield each choice's pieces as they come, with the choice's number."""
        if self._first is not None:
            self.made[self._first[0]].add(self._first[1])
            yield self._first
        try:
            async for number, delta in self._deltas:
                self.made[number].add(delta)
                yield number, delta
        except InvalidRequest as error:
            raise self._explained(error) from None

    async def whole(self) -> None:
        """Generate to the end. What fails was not served, and is not charged.

        Nor is a batch's line that is broken off: it is asked again, or never delivered.
        """
        try:
            async for _ in self.pieces():
                pass
        except Unavailable as error:
            self._settled = True
            raise await self._deleted_or(error) from None
        except BaseException as error:
            self._settled = self._caller.batch or isinstance(error, TuneryError)
            raise
        finally:
            await self.close()

    async def _deleted_or(self, error: Unavailable) -> TuneryError:
        """Return what the caller is told: a model deleted since it was found is an unknown one."""
        name, tenant = self.prepared.model.name, self._caller.tenant
        if error.code == "model_files_missing":
            self._parts.models.forget()
            try:
                await anyio.to_thread.run_sync(
                    get_model, self._parts.database, self._parts.directory, tenant, name
                )
            except NotFound as unknown:
                return unknown
        return error

    def _explained(self, error: InvalidRequest) -> InvalidRequest:
        """Return the error of a grammar as that of a field; any other as it is."""
        if self._at_fault is None or error.code != INVALID_GRAMMAR:
            return error
        called: str | None = None
        for made in self.made:
            if made.finish_reason is None and self.prepared.reading is not None:
                heard = Heard(self.prepared.reading)
                heard.take(made.as_delta())
                called = heard.calls[-1].name if heard.calls else called
        return self._at_fault(error, called)

    async def close(self) -> None:
        """Stop the engine's work and write the ledger, whatever became of the request."""
        if self._first is not None and not any(one.completion_tokens for one in self.made):
            self.made[self._first[0]].add(self._first[1])  # made, though nobody has read it
        with anyio.CancelScope(shield=True):
            try:
                await self._deltas.aclose()
            finally:
                await self._settle()

    async def _settle(self) -> None:
        if self._settled:
            return
        self._settled = True
        line = ledger_line(self._caller, self.prepared, self.completion_tokens)
        written = self._parts.ledger.put(line)
        try:
            await asyncio.shield(written)
        except asyncio.CancelledError:  # a task's own cancel heeds no scope
            await asyncio.shield(written)
            raise


def _merged(
    streams: Sequence[AsyncGenerator[Delta, None]],
) -> AsyncGenerator[tuple[int, Delta], None]:
    """Return what the streams yield, as it comes, with each stream's number."""
    return _one(streams[0]) if len(streams) == 1 else _several(streams)


async def _one(stream: AsyncGenerator[Delta, None]) -> AsyncGenerator[tuple[int, Delta], None]:
    try:
        async for delta in stream:
            yield 0, delta
    finally:
        await stream.aclose()


async def _several(
    streams: Sequence[AsyncGenerator[Delta, None]],
) -> AsyncGenerator[tuple[int, Delta], None]:
    places = asyncio.Semaphore(_AT_ONCE)
    waiting: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue()

    async def forward(number: int, stream: AsyncGenerator[Delta, None]) -> None:
        try:
            async with places:
                async for delta in stream:
                    waiting.put_nowait((number, delta))
            waiting.put_nowait((number, None))
        except Exception as error:
            waiting.put_nowait((number, error))
        finally:
            await stream.aclose()

    tasks = [asyncio.ensure_future(forward(n, stream)) for n, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            number, item = await waiting.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield number, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
