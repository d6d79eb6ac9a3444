"""/v1/chat/completions: limits, generate, settle."""

import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from tunery.api import streaming
from tunery.api.body import documented, read_json
from tunery.api.context import Context, context_of
from tunery.api.gate import Caller, CallerDependency
from tunery.domain.errors import TuneryError
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
    "",
    response_model=ChatCompletion,
    responses={200: streaming.DOCUMENTED},
    openapi_extra=documented(CreateChatCompletionRequest),
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
        await answer.start()  # an engine that refuses does so as an HTTP error, not as an event
        return streaming.EventStream(answer.events(with_usage), answer.close)
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


class _Answer:
    """One answer: generated, passed on, and settled once with what was really made."""

    def __init__(self, context: Context, caller: Caller, prepared: chat.PreparedChat) -> None:
        self._context = context
        self._caller = caller
        self._prepared = prepared
        self._deltas = context.engine.generate(prepared.generation)
        self._last = Delta("", 0)
        self._settled = False

    async def whole(self) -> ChatCompletion:
        """Return the answer as one object. One that fails was not served, and is not charged."""
        text = ""
        try:
            async for delta in self._deltas:
                self._last = delta
                text += delta.text
        except TuneryError:
            self._settled = True
            raise
        finally:
            await self.close()
        return to_wire_completion(
            completion_id=new_id("chatcmpl-"),
            created=int(time.time()),
            model=self._prepared.model.name,
            fingerprint=self._fingerprint(),
            text=text,
            last=self._last,
            prompt_tokens=self._prepared.prompt_tokens,
        )

    async def start(self) -> None:
        """Wait for the first token; raise what the engine refuses with."""
        self._last = await anext(self._deltas)

    async def events(self, with_usage: bool) -> AsyncGenerator[bytes, None]:
        """Yield the answer as events: [DONE] comes last, once the ledger has it."""
        maker = ChunkMaker(
            completion_id=new_id("chatcmpl-"),
            created=int(time.time()),
            model=self._prepared.model.name,
            fingerprint=self._fingerprint(),
        )
        yield _event(maker.first(), with_usage)
        while True:
            if self._last.text:
                yield _event(maker.text(self._last.text), with_usage)
            if self._last.finish_reason is not None:
                break
            self._last = await anext(self._deltas)
        await self.close()
        yield _event(maker.last(self._last.finish_reason), with_usage)
        if with_usage:
            used = to_wire_usage(self._prepared.prompt_tokens, self._last.completion_tokens)
            yield _event(maker.usage(used), with_usage)
        yield streaming.DONE

    async def close(self) -> None:
        """Stop the engine's work and write the ledger, whatever becomes of the request."""
        with anyio.CancelScope(shield=True):
            await self._deltas.aclose()
            if self._settled:
                return
            self._settled = True
            await run_in_threadpool(
                chat.settle_chat,
                self._context.database,
                self._caller.tenant,
                self._caller.key_id,
                self._caller.request_id,
                self._prepared,
                self._last.completion_tokens,
            )

    def _fingerprint(self) -> str:
        """Return which weights answer: the base's digest, and the adapter's."""
        model = self._prepared.model
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
