"""Requests to a vLLM server, and what its refusals mean. Knows no route of it, and no model."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from tunery.domain.errors import Overloaded, TuneryError, Unavailable
from tunery.inference.lines import lines

_SHOWN = 300  # characters of a message of vLLM's: it may say a whole request again


@dataclass(frozen=True, slots=True)
class VllmAddress:
    """Where a vLLM server is, without a slash at the end, and its key; empty where it asks none."""

    url: str
    key: str


class NoAnswer(Unavailable):
    """Nothing answers where the server should be: it is down, or starting."""


class VllmConnection:
    """Sends requests. `address` is asked each time: a server that was restarted has a new one."""

    def __init__(self, address: Callable[[], VllmAddress]) -> None:
        self._address = address
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=2.0),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,  # the operator's own machine, whatever proxy the environment names
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def send(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> httpx2.Response:
        """Return the response, not yet read; raise NoAnswer where there is none."""
        for attempt in range(2):
            try:
                address = self._address()
                headers = {"authorization": f"Bearer {address.key}"} if address.key else {}
                content = None
                if body is not None:
                    headers["content-type"] = "application/json"
                    content = orjson.dumps(body)
                request = self._client.build_request(
                    method, address.url + path, headers=headers, content=content
                )
                return await self._client.send(request, stream=True)
            except (httpx2.TransportError, OSError, ValueError) as error:
                if attempt:
                    raise NoAnswer(
                        "vLLM does not answer; it may be starting. Try again.",
                        code="engine_unavailable",
                    ) from error
                await asyncio.sleep(0.2)
        raise AssertionError("unreachable")

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """Return a whole answer; raise what a refusal says."""
        response = await self.send(method, path, body)
        try:
            if not response.is_success:
                raise await refusal(response)
            return await read(response)
        finally:
            await response.aclose()


async def read(response: httpx2.Response) -> bytes:
    """Return the body; raise Unavailable where it is cut off."""
    try:
        return await response.aread()
    except httpx2.TransportError as error:
        raise broken_off() from error


async def refusal(response: httpx2.Response) -> TuneryError:
    """Return what a response that is no success says."""
    said = message(await read(response), f"HTTP {response.status_code}")
    return _told(response.status_code, said)


def _told(status: int, said: str) -> TuneryError:
    if status in (401, 403):
        return Unavailable(
            "vLLM does not take our key; set TUNERY_VLLM__API_KEY to the --api-key that it was"
            " started with.",
            code="engine_unavailable",
        )
    if status in (429, 503):
        return Overloaded(f"vLLM has no room now: {said}")
    if status >= 500:
        return Unavailable(f"vLLM has failed: {said}", code="engine_error")
    return TuneryError(f"The engine refused: {said}", code="engine_error")


def message(body: bytes, default: str) -> str:
    """Return the message of an error of vLLM's, cut to a bounded length."""
    try:
        value = orjson.loads(body)
        said = str(value["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return default
    return said if len(said) <= _SHOWN else said[:_SHOWN] + " ..."


async def events(response: httpx2.Response) -> AsyncGenerator[dict[str, Any], None]:
    """Yield a stream's events up to `[DONE]`; raise Unavailable for a cut, or an error in it."""
    try:
        async with aclosing(lines(response.aiter_bytes())) as told:
            async for line in told:
                if not line.startswith(b"data:"):
                    continue  # an empty line between two events, or a comment
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                event: dict[str, Any] = orjson.loads(data)
                if "error" in event:  # some refusals come in the stream, after a 200
                    raise _told(int(event["error"].get("code") or 500), message(data, "no message"))
                yield event
    except httpx2.TransportError as error:
        raise broken_off() from error


def broken_off() -> Unavailable:
    """Return the error of an answer that did not come to its end."""
    return Unavailable(
        "vLLM stopped before the answer was complete; try again.", code="engine_error"
    )
