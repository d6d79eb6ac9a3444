"""/v1/chat/completions."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from tunery.api import streaming
from tunery.api.body import documented, read_value
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.once import once_key_of
from tunery.domain.once import AlreadyDone
from tunery.endpoints import chat
from tunery.protocol.chat import CreateChatCompletionRequest
from tunery.protocol.chat_completion import ChatCompletion, ChatCompletionChunk
from tunery.services import stored_completions
from tunery.wire.chat import TextChunk
from tunery.wire.refusals import answered_before

router = APIRouter(prefix="/v1/chat/completions")


@router.post(
    "",
    response_model=ChatCompletion,
    responses={200: streaming.DOCUMENTED},
    openapi_extra=documented(CreateChatCompletionRequest),
)
async def create(request: Request, caller: CallerDependency) -> Response:
    """Answer a conversation, whole or as a stream of server-sent events."""
    context, value = context_of(request), await read_value(request)
    whole: ChatCompletion
    try:
        answer = await chat.begin(context.parts, caller, value, once_key_of(request, value))
        if answer.body.stream:
            await answer.start()  # an engine that refuses does so as an HTTP error, not as an event
            return streaming.EventStream(_events(answer), answer.close)
        whole = await streaming.unless_gone(request, answer.whole())
    except streaming.ClientGone:
        return Response(status_code=499)  # nobody reads it
    except AlreadyDone as done:
        if value.get("stream"):
            raise answered_before(done) from None
        stored = await run_in_threadpool(
            stored_completions.get_completion, context.database, caller.tenant, done.object_id
        )
        whole = ChatCompletion.model_validate(stored.response)
    return Response(whole.model_dump_json(), media_type="application/json")


async def _events(answer: chat.ChatAnswer) -> AsyncGenerator[bytes, None]:
    options = answer.body.stream_options
    with_usage = options is not None and options.include_usage
    texts: dict[int, streaming.TextEvents] = {}  # of each choice
    try:
        async for chunk in answer.chunks():
            if not isinstance(chunk, TextChunk):
                yield _event(chunk, with_usage)
                continue
            if chunk.index not in texts:
                marked = replace(chunk, text=streaming.MARK).whole()
                texts[chunk.index] = streaming.TextEvents(_event(marked, with_usage))
            yield texts[chunk.index](chunk.text)
    except AlreadyDone as done:  # by the same request, sent at the same moment
        raise answered_before(done) from None
    yield streaming.DONE


def _event(chunk: ChatCompletionChunk, with_usage: bool) -> bytes:
    """Return a chunk as an event: `usage` is there only if asked for."""
    value: dict[str, Any] = chunk.model_dump()
    if not with_usage:
        del value["usage"]
    return streaming.event(value)
