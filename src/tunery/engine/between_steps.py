"""A call from HTTP's event loop to the scheduler's thread, and its result back."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def between_steps(
    call: Callable[[Callable[[], None]], None], action: Callable[[], Result]
) -> Result:
    """Return the result of `action`, or raise what it raises; `call` is the scheduler's way in."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def command() -> None:
        try:
            result = action()
        except Exception as error:
            loop.call_soon_threadsafe(_fail, done, error)
        else:
            loop.call_soon_threadsafe(_settle, done, result)

    call(command)
    return await done


def _settle(done: "asyncio.Future[Result]", result: Result) -> None:
    if not done.done():  # the caller may be gone
        done.set_result(result)


def _fail(done: "asyncio.Future[Result]", error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
