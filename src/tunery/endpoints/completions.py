"""/v1/completions: text in, what may follow it out, whole or in pieces."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from anyio.to_thread import run_sync

from tunery.domain.errors import ContextTooLong, InvalidRequest
from tunery.domain.ids import new_id
from tunery.domain.ports.engine import Delta, TokenLogprob
from tunery.domain.tenants import Caller
from tunery.endpoints.generating import Generating, Made
from tunery.endpoints.parts import Parts
from tunery.protocol.completions import Completion, CompletionChoice, CreateCompletionRequest
from tunery.services import completions
from tunery.wire.chat import to_wire_usage
from tunery.wire.completions import check_request, from_wire_prompts, to_wire_logprobs
from tunery.wire.options import from_wire_options
from tunery.wire.requests import from_wire_value

_DEFAULT_TOKENS = 16


async def answer(parts: Parts, caller: Caller, value: Any) -> Completion:
    """Return the whole answer to a body's value."""
    return await (await begin(parts, caller, value)).whole()


async def begin(parts: Parts, caller: Caller, value: Any) -> "CompletionAnswer":
    """Check a body's value and prepare its answer; all that can be refused is refused here."""
    body = from_wire_value(value, CreateCompletionRequest)
    check_request(body)
    prompts = from_wire_prompts(body.prompt)
    try:
        prepared = await run_sync(
            completions.prepare_completion,
            parts.models,
            parts.renderers,
            parts.engine_context_tokens,
            caller.tenant,
            _request(body, prompts),
        )
    except ContextTooLong as error:
        raise InvalidRequest(
            error.message.replace("messages", "prompt"), param="prompt", code=error.code
        ) from None
    tokenizer = parts.renderers(prepared.model.base).tokenizer
    made_of_each = body.best_of or body.n or 1
    echoes = [
        _Echo(
            prompt if isinstance(prompt, str) else tokenizer.decode(prompt),
            list(prepared.generations[number * made_of_each].prompt_ids),
        )
        for number, prompt in enumerate(prompts)
    ]
    if body.max_tokens == 0:
        prepared = replace(prepared, generations=())
    return CompletionAnswer(parts, caller, body, Generating(parts, caller, prepared), echoes)


@dataclass(slots=True)
class _Echo:
    """A prompt, and how likely its tokens are where that is asked for."""

    text: str
    ids: list[int]
    tokens: list[TokenLogprob] = field(default_factory=list)


class CompletionAnswer:
    """One answer: generated, passed on, and settled once with what was really made."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        body: CreateCompletionRequest,
        generating: Generating,
        echoes: list[_Echo],
    ) -> None:
        self.body = body
        self._parts = parts
        self._caller = caller
        self._generating = generating
        self._echoes = echoes
        self._n = body.n or 1
        self._made_of_each = body.best_of or self._n
        self._shared = {
            "id": new_id("cmpl-"),
            "created": int(time.time()),
            "model": generating.prepared.model.name,
            "system_fingerprint": generating.fingerprint,
        }

    async def whole(self) -> Completion:
        """Return the answer as one object."""
        try:
            await self._score_prompts()
        except asyncio.CancelledError:  # the prompts were computed, though nobody hears of it
            await self.close()
            raise
        await self._generating.whole()
        choices = [
            self._choice(number * self._n + place, echo, made)
            for number, echo in enumerate(self._echoes)
            for place, made in enumerate(self._best(number))
        ]
        return Completion(choices=choices, usage=self._usage(), **self._shared)

    async def start(self) -> None:
        """Wait for the first token; raise what the engine refuses with."""
        await self._score_prompts()
        if self._generating.made:
            await self._generating.start()

    async def pieces(self) -> AsyncGenerator[Completion, None]:
        """Yield the answer in pieces; the last ones come once the ledger has it."""
        count = self._n * len(self._echoes)
        offsets = [0] * count
        if self.body.echo:
            for index in range(count):
                echo = self._echoes[index // self._n]
                yield self._piece(self._choice(index, echo, Made(), ended=False))
                offsets[index] = len(echo.text)
        async for index, delta in self._generating.pieces():
            if delta.text or delta.logprobs:
                yield self._piece(self._delta(index, delta, offsets[index]))
                offsets[index] += sum(len(one.token) for one in delta.logprobs)
        await self.close()
        for index in range(count):
            made = self._generating.made[index] if self._generating.made else Made()
            yield self._piece(
                CompletionChoice(index=index, text="", logprobs=None, finish_reason=_reason(made))
            )
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield Completion(choices=[], usage=self._usage(), **self._shared)

    async def close(self) -> None:
        """Stop the engine's work and write the ledger, whatever became of the request."""
        await self._generating.close()

    async def _score_prompts(self) -> None:
        """Ask how likely the prompts' tokens are, where they are to be told."""
        if not self.body.echo or self.body.logprobs is None:
            return
        model = self._generating.prepared.model
        tokenizer = self._parts.renderers(model.base).tokenizer
        adapter = None if model.tuned is None else model.tuned.adapter
        for echo in self._echoes:
            first = TokenLogprob(tokenizer.token_id_text(echo.ids[0]), b"", 0.0, ())
            rest: list[TokenLogprob] = []
            if len(echo.ids) > 1:
                rest = await self._parts.engine.likelihoods(
                    echo.ids,
                    model.base.digest,
                    adapter,
                    self.body.logprobs,
                    tenant=self._caller.tenant.project_id,
                )
            echo.tokens = [first, *rest]

    def _best(self, number: int) -> list[Made]:
        """Return a prompt's choices: with best_of, those of the highest mean log-probability."""
        if not self._generating.made:
            return [Made() for _ in range(self._n)]
        first = number * self._made_of_each
        made = self._generating.made[first : first + self._made_of_each]
        if self._made_of_each > self._n:
            made = sorted(made, key=_mean_logprob, reverse=True)
        return made[: self._n]

    def _choice(
        self, index: int, echo: _Echo, made: Made, *, ended: bool = True
    ) -> CompletionChoice:
        """Return a choice as far as it is made, with its prompt before it where that is asked."""
        text = made.text
        told = made.logprobs
        if self.body.echo:
            text = echo.text + text
            told = [*echo.tokens, *told]
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=None
            if self.body.logprobs is None
            else to_wire_logprobs(told, starts=bool(self.body.echo), first_offset=0),
            finish_reason=_reason(made) if ended else None,
        )

    def _delta(self, index: int, delta: Delta, offset: int) -> CompletionChoice:
        logprobs = None
        if self.body.logprobs is not None and delta.logprobs:
            logprobs = to_wire_logprobs(delta.logprobs, starts=False, first_offset=offset)
        return CompletionChoice(index=index, text=delta.text, logprobs=logprobs, finish_reason=None)

    def _piece(self, choice: CompletionChoice) -> Completion:
        return Completion(choices=[choice], **self._shared)

    def _usage(self) -> Any:
        return to_wire_usage(
            self._generating.prepared.prompt_tokens,
            self._generating.completion_tokens,
            self._generating.cached_tokens,
        )


def _reason(made: Made) -> str:
    """Return why a choice ended; one of no tokens at all has reached its length."""
    return made.finish_reason or "length"


def _mean_logprob(made: Made) -> float:
    count = len(made.logprobs)
    return sum(one.logprob for one in made.logprobs) / count if count else 0.0


def _request(
    body: CreateCompletionRequest, prompts: list[str | list[int]]
) -> completions.CompletionRequest:
    n = body.n or 1
    ranks = body.best_of is not None and body.best_of > n
    limit = _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    return completions.CompletionRequest(
        model=body.model,
        prompts=prompts,
        options=replace(
            from_wire_options(body),
            max_tokens=max(1, limit),
            n=body.best_of or n,
            top_logprobs=0 if ranks and body.logprobs is None else body.logprobs,
        ),
        end_user=body.user,
    )
