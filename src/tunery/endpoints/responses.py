"""/v1/responses: items in, a response out, whole or in events, and kept unless asked not to be."""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from anyio.to_thread import run_sync

from tunery.datasets.heard import Heard
from tunery.domain.errors import InvalidRequest, TuneryError
from tunery.domain.ids import new_id
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.responses import Item, StoredResponse
from tunery.domain.tenants import Caller
from tunery.endpoints.generating import Generating
from tunery.endpoints.parts import Parts
from tunery.protocol.response_events import ResponseEvent
from tunery.protocol.response_request import CountInputTokensRequest, CreateResponseRequest
from tunery.protocol.responses import InputTokenCount, ResponseObject
from tunery.services import responses
from tunery.services.answers import check_once
from tunery.services.chat import ChatRequest
from tunery.wire.formats import from_wire_text_format
from tunery.wire.grammar_faults import grammar_fault
from tunery.wire.refusals import answered_before
from tunery.wire.requests import from_wire_value
from tunery.wire.response_events import EventMaker
from tunery.wire.response_items import check_new, from_wire_input, to_messages
from tunery.wire.response_tools import from_flat_calling
from tunery.wire.responses import (
    ResponseMaker,
    check_count,
    check_request,
    from_wire_response_options,
)


async def answer(parts: Parts, caller: Caller, value: Any) -> ResponseObject:
    """Return the whole response to a body's value."""
    return await (await begin(parts, caller, value)).whole()


async def begin(
    parts: Parts, caller: Caller, value: Any, once: OnceKey | None = None
) -> "ResponseAnswer":
    """Check a body's value and prepare its answer; all that can be refused is refused here.

    Raises AlreadyDone where a response that was kept answers the same request already.
    """
    body = from_wire_value(value, CreateResponseRequest)
    check_request(body)
    items = from_wire_input(body.input)
    generating = await run_sync(_prepare, parts, caller, body, items, once)
    return ResponseAnswer(parts, caller, body, items, generating, once)


async def count(parts: Parts, caller: Caller, value: Any) -> InputTokenCount:
    """Return how many tokens the input of a body's value has."""
    body = from_wire_value(value, CountInputTokensRequest)
    return InputTokenCount(input_tokens=await run_sync(_count, parts, caller, body))


def _prepare(
    parts: Parts,
    caller: Caller,
    body: CreateResponseRequest,
    items: list[Item],
    once: OnceKey | None,
) -> Generating:
    if body.store is not False and once is not None:
        check_once(parts.database, caller.tenant, once)
    messages = _conversation(parts, caller, body.previous_response_id, items)
    request = ChatRequest(
        model=body.model,
        messages=messages,
        options=replace(from_wire_response_options(body), grammar=_grammar(body, messages)),
        end_user=body.safety_identifier or body.user,
        calling=from_flat_calling(body),
        endpoint="v1/responses",
    )
    try:
        prepared = responses.prepare_response(
            parts.models,
            parts.renderers,
            parts.engine_context_tokens,
            caller.tenant,
            request,
            instructions=body.instructions,
            truncate=body.truncation == "auto",
        )
    except InvalidRequest as error:
        raise _of_input(error) from None

    def at_fault(error: InvalidRequest, called: str | None) -> InvalidRequest:
        wanted = None if body.text is None else body.text.format
        return grammar_fault(error, wanted, request.calling, called)

    return Generating(parts, caller, prepared, at_fault)


def _count(parts: Parts, caller: Caller, body: CountInputTokensRequest) -> int:
    model = check_count(body)
    items = from_wire_input(body.input)
    calling = from_flat_calling(body)
    messages = _conversation(parts, caller, body.previous_response_id, items)
    _grammar(body, messages)  # no part of what is counted, but refused as it would be
    try:
        return responses.count_tokens(
            parts.models,
            parts.renderers,
            caller.tenant,
            model,
            [*responses.under(body.instructions), *messages],
            () if calling is None else calling.functions,
        )
    except InvalidRequest as error:
        raise _of_input(error) from None


def _grammar(
    body: CreateResponseRequest | CountInputTokensRequest, messages: list[dict[str, Any]]
) -> str | None:
    wanted = None if body.text is None else body.text.format
    return from_wire_text_format(wanted, [*responses.under(body.instructions), *messages])


def _conversation(
    parts: Parts, caller: Caller, previous_id: str | None, items: list[Item]
) -> list[dict[str, Any]]:
    earlier: list[Item] = []
    if previous_id is not None:
        earlier = responses.earlier_items(
            parts.database, caller.tenant, previous_id, parts.engine_context_tokens
        )
        check_new(items, earlier)
    return to_messages([*earlier, *items])


def _of_input(error: InvalidRequest) -> InvalidRequest:
    """Return the error of a conversation under the name that the field has here."""
    if error.param != "messages":
        return error
    return InvalidRequest(error.message, param="input", code=error.code)


class ResponseAnswer:
    """One response: generated, passed on, settled once with what was really made, and kept."""

    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        body: CreateResponseRequest,
        items: list[Item],
        generating: Generating,
        once: OnceKey | None,
    ) -> None:
        self.body = body
        self._parts = parts
        self._caller = caller
        self._items = items
        self._generating = generating
        self._once = once
        self._heard = Heard(generating.prepared.reading)
        self._created_at = int(time.time())
        self._maker = ResponseMaker(
            body,
            response_id=new_id("resp_"),
            message_id=new_id("msg_"),
            created_at=self._created_at,
            fingerprint=generating.fingerprint,
        )

    async def whole(self) -> ResponseObject:
        """Return the response as one object."""
        await self._generating.whole()
        self._heard.take(self._generating.made[0].as_delta())
        return await self._kept()

    async def start(self) -> None:
        """Wait for the first token; raise what the engine refuses with."""
        await self._generating.start()

    async def events(self) -> AsyncGenerator[ResponseEvent, None]:
        """Yield the response in events; the closing ones come once it is in the ledger and kept."""
        maker = EventMaker(self._maker, self._heard)
        may_call = self._generating.prepared.reading is not None
        for event in maker.opening(self._maker.begun(), may_call=may_call):
            yield event
        try:
            async for _, delta in self._generating.pieces():
                for event in maker.pieces(*self._heard.take(delta)):
                    yield event
            await self.close()
            response = await self._kept()
        except TuneryError as error:
            yield maker.failed(self._maker.failed(error.message))
            return
        except AlreadyDone as done:
            yield maker.failed(self._maker.failed(answered_before(done).message))
            return
        for event in maker.closing(response):
            yield event

    async def close(self) -> None:
        """Stop the engine's work and write the ledger, whatever became of the request."""
        await self._generating.close()

    async def _kept(self) -> ResponseObject:
        """Return the response once it is kept, if it is to be."""
        (made,) = self._generating.made
        response = self._maker.ended(
            self._heard,
            prompt_tokens=self._generating.prepared.prompt_tokens,
            cached_tokens=self._generating.cached_tokens,
            completion_tokens=made.completion_tokens,
            ended_at=int(time.time()),
        )
        if response.store:
            stored = StoredResponse(
                id=response.id,
                previous_id=self.body.previous_response_id,
                model=response.model,
                input_items=tuple(self._items),
                response=response.model_dump(mode="json"),
                created_at=self._created_at,
                expires_at=self._created_at + self._parts.responses_kept_s,
            )
            await run_sync(
                responses.store_response,
                self._parts.database,
                self._caller.tenant,
                stored,
                self._once,
            )
        return response
