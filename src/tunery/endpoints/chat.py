"""/v1/chat/completions: a conversation in, an answer out, whole or in chunks."""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from anyio.to_thread import run_sync

from tunery.datasets.heard import Heard
from tunery.datasets.tool_calls import Said
from tunery.domain.errors import InvalidRequest
from tunery.domain.ids import new_id
from tunery.domain.once import OnceKey
from tunery.domain.stored_completions import StoredCompletion
from tunery.domain.tenants import Caller
from tunery.endpoints.generating import Generating
from tunery.endpoints.parts import Parts
from tunery.protocol.chat import CreateChatCompletionRequest
from tunery.protocol.chat_completion import ChatCompletion, ChatCompletionChunk
from tunery.services import chat, stored_completions
from tunery.services.answers import check_once
from tunery.wire.chat import (
    ChunkMaker,
    TextChunk,
    check_request,
    to_wire_choice,
    to_wire_completion,
    to_wire_usage,
)
from tunery.wire.formats import from_wire_response_format
from tunery.wire.grammar_faults import grammar_fault
from tunery.wire.messages import from_wire_messages
from tunery.wire.options import from_wire_options
from tunery.wire.requests import from_wire_value
from tunery.wire.tools import from_wire_calling

_SHORT_CHARACTERS = 4_000
_TURN_CHARACTERS = 100  # what a turn costs beside its text


async def answer(parts: Parts, caller: Caller, value: Any) -> ChatCompletion:
    """Return the whole answer to a body's value."""
    return await (await begin(parts, caller, value)).whole()


async def begin(
    parts: Parts, caller: Caller, value: Any, once: OnceKey | None = None
) -> "ChatAnswer":
    """Check a body's value and prepare its answer; all that can be refused is refused here.

    Raises AlreadyDone where a completion that was stored answers the same request already.
    """
    body = from_wire_value(value, CreateChatCompletionRequest)
    check_request(body)
    if body.store and once is not None:
        await run_sync(check_once, parts.database, caller.tenant, once)
    if _is_short(body) and parts.models.known(caller.tenant, body.model) is not None:
        generating = _prepare(parts, caller, body)  # a thread would cost more than the work
    else:
        generating = await run_sync(_prepare, parts, caller, body)
    return ChatAnswer(parts, caller, body, generating, once)


def _is_short(body: CreateChatCompletionRequest) -> bool:
    """Return whether the prompt is rendered in a millisecond, with no grammar to check."""
    if body.tools or body.functions or body.response_format is not None:
        return False
    characters = 0
    for message in body.messages:
        if not isinstance(message.content, str):
            return False
        characters += len(message.content) + _TURN_CHARACTERS
    return characters <= _SHORT_CHARACTERS


def _prepare(parts: Parts, caller: Caller, body: CreateChatCompletionRequest) -> Generating:
    request = _request(body)
    prepared = chat.prepare_chat(
        parts.models,
        parts.renderers,
        parts.engine_context_tokens,
        caller.tenant,
        request,
    )

    def at_fault(error: InvalidRequest, called: str | None) -> InvalidRequest:
        return grammar_fault(error, body.response_format, request.calling, called)

    return Generating(parts, caller, prepared, at_fault)


class ChatAnswer:
    """One answer: generated, passed on, settled once with what was really made, maybe stored."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        body: CreateChatCompletionRequest,
        generating: Generating,
        once: OnceKey | None,
    ) -> None:
        self.body = body
        self._parts = parts
        self._caller = caller
        self._once = once
        self._generating = generating
        self._heard = [Heard(generating.prepared.reading) for _ in generating.made]
        self._id = new_id("chatcmpl-")
        self._created = int(time.time())

    async def whole(self) -> ChatCompletion:
        """Return the answer as one object."""
        await self._generating.whole()
        for heard, made in zip(self._heard, self._generating.made, strict=True):
            heard.take(made.as_delta())
        return await self._stored(self._completion())

    async def start(self) -> None:
        """Wait for the first token; raise what the engine refuses with."""
        await self._generating.start()

    async def chunks(self) -> AsyncGenerator[ChatCompletionChunk | TextChunk, None]:
        """Yield the answer in chunks; the last ones come once it is in the ledger, and stored."""
        maker = ChunkMaker(
            completion_id=self._id,
            created=self._created,
            model=self._generating.prepared.model.name,
            fingerprint=self._generating.fingerprint,
            deprecated=self._deprecated,
        )
        may_call = self._generating.prepared.reading is not None
        for index in range(len(self._heard)):
            yield maker.first(index, may_call=may_call)
        async for index, delta in self._generating.pieces():
            heard = self._heard[index]
            pieces, told = heard.take(delta)
            if not told and len(pieces) == 1 and isinstance(pieces[0], Said):
                yield TextChunk(maker, index, pieces[0].text)
                continue
            for chunk in maker.pieces(index, heard, pieces, told):
                yield chunk
        await self.close()
        completion = await self._stored(self._completion())
        for choice in completion.choices:
            yield maker.last(choice.index, choice.finish_reason)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield maker.usage(completion.usage)

    async def close(self) -> None:
        """Stop the engine's work and write the ledger, whatever became of the request."""
        await self._generating.close()

    async def _stored(self, completion: ChatCompletion) -> ChatCompletion:
        """Return the completion once it is stored, if it is to be."""
        if self.body.store:
            stored = StoredCompletion(
                id=self._id,
                model=completion.model,
                metadata=self.body.metadata,
                request_id=self._caller.request_id,
                request=self.body.model_dump(mode="json", exclude_unset=True, by_alias=True),
                response=completion.model_dump(mode="json"),
                created_at=self._created,
            )
            await run_sync(
                stored_completions.store_completion,
                self._parts.database,
                self._caller.tenant,
                stored,
                self._once,
            )
        return completion

    @property
    def _deprecated(self) -> bool:
        return bool(self.body.functions)

    def _completion(self) -> ChatCompletion:
        generating = self._generating
        return to_wire_completion(
            completion_id=self._id,
            created=self._created,
            model=generating.prepared.model.name,
            fingerprint=generating.fingerprint,
            choices=[
                to_wire_choice(
                    index, heard, told=bool(self.body.logprobs), deprecated=self._deprecated
                )
                for index, heard in enumerate(self._heard)
            ],
            usage=to_wire_usage(
                generating.prepared.prompt_tokens,
                generating.completion_tokens,
                generating.cached_tokens,
            ),
            metadata=self.body.metadata if self.body.store else None,
        )


def _request(body: CreateChatCompletionRequest) -> chat.ChatRequest:
    limit = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    messages = from_wire_messages(body.messages)
    return chat.ChatRequest(
        model=body.model,
        messages=messages,
        options=replace(
            from_wire_options(body),
            max_tokens=limit,
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            grammar=from_wire_response_format(body.response_format, messages),
        ),
        end_user=body.safety_identifier or body.user,
        calling=from_wire_calling(body),
    )
