"""Server-sent events as OpenAI sends them, and answers that end when their client goes away."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio
import orjson
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tunery.domain.errors import TuneryError
from tunery.domain.ids import new_id
from tunery.telemetry import logger
from tunery.wire.errors import bug_body, error_body

DONE = b"data: [DONE]\n\n"
DOCUMENTED: dict[str, Any] = {
    "description": "The answer, whole, or as events where `stream` is true.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}

Result = TypeVar("Result")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def event(value: Any) -> bytes:
    """Return one event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


MARK = new_id("text-")
"""Stands for the text in the event that others are made like: nobody can know it and send it."""


class TextEvents:
    """Events that differ in one text only: an object for each would cost more than all the rest."""

    def __init__(self, marked: bytes) -> None:
        """`marked` is such an event, with MARK as its text."""
        self._before, self._after = marked.split(orjson.dumps(MARK))

    def __call__(self, text: str) -> bytes:
        """Return the event with this text."""
        return self._before + orjson.dumps(text) + self._after


class EventStream(StreamingResponse):
    """Events as a response; `close` is awaited however it ends, a client that goes away included.

    An unstarted generator runs no cleanup of its own, so cleaning up is not left to it.
    """

    def __init__(
        self, events: AsyncGenerator[bytes, None], close: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(_with_errors(events), media_type="text/event-stream")
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._events.aclose()
                await self._close()


async def _with_errors(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass events on; an error in mid-stream becomes an error event, and no [DONE] follows it."""
    try:
        async for item in events:
            yield item
    except TuneryError as error:
        yield event(error_body(error)[1].model_dump())
    except Exception as error:  # a stream that is cut says less than one that says what happened
        logger().error("stream failed by a bug", exc_info=error)
        yield event(bug_body()[1].model_dump())


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` returns; cancel it and raise ClientGone when the client goes away."""
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for one in (task, watcher):
            if not one.done():
                one.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
