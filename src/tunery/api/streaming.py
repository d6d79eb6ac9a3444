"""Server-sent events as OpenAI sends them, and answers that end when their client goes away."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import orjson
from fastapi import Request

from tunery.api.errors import error_body
from tunery.domain.errors import TuneryError

DONE = b"data: [DONE]\n\n"
MEDIA_TYPE = "text/event-stream"

Result = TypeVar("Result")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def event(value: Any) -> bytes:
    """Return one event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


async def with_errors(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass events on; an error in mid-stream becomes an error event, and no [DONE] follows it."""
    try:
        async for item in events:
            yield item
    except TuneryError as error:
        yield event(error_body(error)[1].model_dump())


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
