"""/v1/chat/completions: limits, generate, settle."""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from tunery.api import streaming
from tunery.api.body import documented, read_json
from tunery.api.context import Context, context_of
from tunery.api.gate import Caller, CallerDependency
from tunery.domain.ids import new_id
from tunery.domain.ports.engine import Delta
from tunery.protocol.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    CreateChatCompletionRequest,
)
from tunery.services import chat
from tunery.wire.chat import (
    ChunkMaker,
    from_wire_messages,
    from_wire_stop,
    refuse_unsupported,
    to_wire_completion,
    to_wire_usage,
)

router = APIRouter(prefix="/v1/chat/completions")


@router.post(
    "", response_model=ChatCompletion, openapi_extra=documented(CreateChatCompletionRequest)
)
async def create(request: Request, caller: CallerDependency) -> Response:
    """Answer a conversation, whole or as a stream of server-sent events."""
    context = context_of(request)
    body = await read_json(request, CreateChatCompletionRequest)
    refuse_unsupported(body)
    prepared = await run_in_threadpool(
        chat.prepare_chat,
        context.database,
        context.directory,
        context.renderers,
        context.engine_context_tokens,
        caller.tenant,
        _request(body),
    )
    answer = _Answer(context, caller, prepared)
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        events = await answer.events(with_usage)
        return StreamingResponse(streaming.with_errors(events), media_type=streaming.MEDIA_TYPE)
    try:
        whole = await streaming.unless_gone(request, answer.whole())
    except streaming.ClientGone:
        return Response(status_code=499)  # nobody reads it
    return Response(whole.model_dump_json(), media_type="application/json")


def _request(body: CreateChatCompletionRequest) -> chat.ChatRequest:
    limit = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    return chat.ChatRequest(
        model=body.model,
        messages=from_wire_messages(body.messages),
        max_tokens=limit,
        temperature=1.0 if body.temperature is None else float(body.temperature),
        top_p=1.0 if body.top_p is None else float(body.top_p),
        stop=from_wire_stop(body.stop),
        seed=body.seed,
        end_user=body.safety_identifier or body.user,
    )


@dataclass(slots=True)
class _Answer:
    """One answer: generated, passed on, and settled with what was really made."""

    context: Context
    caller: Caller
    prepared: chat.PreparedChat

    async def whole(self) -> ChatCompletion:
        """Return the answer as one object."""
        text, last = "", Delta("", 0)
        async with aclosing(self.context.engine.generate(self.prepared.generation)) as deltas:
            try:
                async for last in deltas:
                    text += last.text
            except BaseException:
                if last.completion_tokens:
                    await self._settle(last.completion_tokens)
                raise
        await self._settle(last.completion_tokens)
        return to_wire_completion(
            completion_id=new_id("chatcmpl-"),
            created=int(time.time()),
            model=self.prepared.model.name,
            fingerprint=self._fingerprint(),
            text=text,
            last=last,
            prompt_tokens=self.prepared.prompt_tokens,
        )

    async def events(self, with_usage: bool) -> AsyncIterator[bytes]:
        """Return the answer as events, once the engine has accepted it.

        An engine that refuses does so before the first byte, so that it is an HTTP error.
        """
        deltas = self.context.engine.generate(self.prepared.generation)
        first = await anext(deltas)
        return self._events(deltas, first, with_usage)

    async def _events(
        self, deltas: AsyncGenerator[Delta, None], first: Delta, with_usage: bool
    ) -> AsyncIterator[bytes]:
        maker = ChunkMaker(
            completion_id=new_id("chatcmpl-"),
            created=int(time.time()),
            model=self.prepared.model.name,
            fingerprint=self._fingerprint(),
        )
        delta = first
        try:
            yield _event(maker.first(), with_usage)
            while True:
                if delta.text:
                    yield _event(maker.text(delta.text), with_usage)
                if delta.finish_reason is not None:
                    break
                delta = await anext(deltas)
        finally:
            with anyio.CancelScope(shield=True):
                await deltas.aclose()
                await self._settle(delta.completion_tokens)
        yield _event(maker.last(delta.finish_reason), with_usage)
        if with_usage:
            usage = to_wire_usage(self.prepared.prompt_tokens, delta.completion_tokens)
            yield _event(maker.usage(usage), with_usage)
        yield streaming.DONE

    async def _settle(self, completion_tokens: int) -> None:
        """Write the ledger, whatever happens to the request meanwhile."""
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(
                chat.settle_chat,
                self.context.database,
                self.caller.tenant,
                self.caller.key_id,
                self.caller.request_id,
                self.prepared,
                completion_tokens,
            )

    def _fingerprint(self) -> str:
        """Return which weights answer: the base's digest, and the adapter's."""
        model = self.prepared.model
        adapter = "base" if model.tuned is None else model.tuned.adapter.digest[:10]
        return f"fp_{model.base.digest[:10]}_{adapter}"


def _event(chunk: ChatCompletionChunk, with_usage: bool) -> bytes:
    """Return a chunk as an event: `usage` is there only if asked for, a delta has no nulls."""
    value: dict[str, Any] = chunk.model_dump()
    if not with_usage:
        del value["usage"]
    for choice in value["choices"]:
        choice["delta"] = {k: v for k, v in choice["delta"].items() if v is not None}
    return streaming.event(value)
