"""Requests to the embedded engine's process. Knows no route of it.

The engine writes its address and secret into a file when it is up; after a restart the file says
the new ones, so they are read again whenever the engine does not answer. A request says beside that
file that the engine is wanted, and waits for one that is being started.
"""

import asyncio
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from tunery.domain.errors import InvalidRequest, Overloaded, TuneryError, Unavailable
from tunery.domain.ports.engine import INVALID_GRAMMAR
from tunery.inference.places import Mark

_LOOK_S = 0.2  # between two tries

LOST = (aiohttp.ClientError, OSError)  # what a request fails with whose engine is not there
# Shorter than the engine's own 5 s: a connection that it is just closing is not used.
_KEEPALIVE_S = 4.0
_LARGE_BYTES = 2**20  # bodies of which are sent in pieces, and the event loop goes on between them


@dataclass(frozen=True, slots=True)
class _Address:
    url: str
    secret: str


class EngineConnection:
    """Knows where the engine is and what it is asked with."""

    def __init__(self, address_file: Path, start_s: float = 0.0) -> None:
        """A request waits up to `start_s` seconds for an engine that is not up."""
        self._address_file = address_file
        self._mark = Mark(address_file.with_suffix(".wanted"))
        self._start_s = start_s
        self._known: tuple[tuple[int, int], _Address] | None = None
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._opened is not None:
            await self._opened.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        wakes: bool = True,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Return the engine's response, not yet read; raise Unavailable where there is none.

        What `wakes` has an engine that is not up started, and waits for it. An engine that went
        away with the request is asked once more, and no oftener: the request may be why.
        """
        deadline = time.monotonic() + max(self._start_s if wakes else 0.0, _LOOK_S)
        lost = 0
        while True:
            if wakes:
                self._mark.renew()
            try:
                address = self._address()
                return await self._session.request(
                    method,
                    address.url + path,
                    params=params,
                    data=_body(content),
                    headers={**(headers or {}), "authorization": f"Bearer {address.secret}"},
                )
            except (*LOST, ValueError) as error:
                lost += isinstance(error, aiohttp.ClientError) and not _refused(error)
                if lost > 1 or time.monotonic() >= deadline:
                    raise Unavailable(
                        "The engine of this model does not answer; it may be starting, or wait for"
                        " room. Try again.",
                        code="engine_unavailable",
                    ) from error
                await asyncio.sleep(_LOOK_S)

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Return the open connections. They belong to a running event loop, so they are made late.

        aiohttp's client: at every answer's cost it takes a quarter of httpx2's time.
        """
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("user-agent", "accept", "accept-encoding"),
            )
        return self._opened

    async def checked(self, response: aiohttp.ClientResponse) -> None:
        """Raise what a response that is no success says."""
        if response.ok:
            return
        body = await self.read(response)
        try:
            value = orjson.loads(body)
            detail, code = value["detail"], value.get("code")
        except (ValueError, KeyError, TypeError):
            detail, code = f"HTTP {response.status}", None
        if code == INVALID_GRAMMAR:
            raise InvalidRequest(str(detail), code=code)
        if response.status == 503:
            raise Overloaded(str(detail))
        if response.status == 401:  # restarted since the address was read
            raise Unavailable("The engine is restarting; try again.", code="engine_unavailable")
        raise TuneryError(f"The engine refused: {detail}", code="engine_error")

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return a response's body; raise Unavailable where the engine goes away before its end."""
        try:
            return await response.read()
        except LOST as error:
            raise cut_off() from error
        finally:
            response.close()

    def _address(self) -> _Address:
        """Return where the engine is; its file is read again only where it is another one.

        On the event loop: a look at one small file costs less than a thread.
        """
        status = self._address_file.stat()
        version = (status.st_ino, status.st_mtime_ns)
        if self._known is None or self._known[0] != version:
            value = orjson.loads(self._address_file.read_bytes())
            self._known = version, _Address(value["url"], value["secret"])
        return self._known[1]


def _body(content: bytes | None) -> bytes | io.BytesIO | None:
    if content is None or len(content) < _LARGE_BYTES:
        return content
    return io.BytesIO(content)


def cut_off() -> Unavailable:
    """Return the error for an engine that went away within its answer."""
    return Unavailable(
        "The engine stopped before the answer was complete; try again.", code="engine_error"
    )


def _refused(error: aiohttp.ClientError) -> bool:
    """Return whether nobody was there to take the request."""
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
