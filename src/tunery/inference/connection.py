"""Requests to the embedded engine's process. Knows no route of it.

The engine writes its address and secret into a file when it is up; after a restart the file says
the new ones, so they are read again whenever the engine does not answer.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from tunery.domain.errors import InvalidRequest, Overloaded, TuneryError, Unavailable
from tunery.domain.ports.engine import INVALID_GRAMMAR

LOST = (aiohttp.ClientError, OSError)  # what a request fails with whose engine is not there
# Shorter than the engine's own 5 s: a connection that it is just closing is not used.
_KEEPALIVE_S = 4.0


@dataclass(frozen=True, slots=True)
class _Address:
    url: str
    secret: str


class EngineConnection:
    """Knows where the engine is and what it is asked with."""

    def __init__(self, address_file: Path) -> None:
        self._address_file = address_file
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
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Return the engine's response, not yet read; raise Unavailable where there is none."""
        for attempt in range(2):
            try:
                address = self._address()
                return await self._session.request(
                    method,
                    address.url + path,
                    params=params,
                    data=content,
                    headers={**(headers or {}), "authorization": f"Bearer {address.secret}"},
                )
            except (*LOST, ValueError) as error:
                if attempt:
                    raise Unavailable(
                        "The engine does not answer; it may be starting. Try again.",
                        code="engine_unavailable",
                    ) from error
                await asyncio.sleep(0.2)
        raise AssertionError("unreachable")

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
        body = await response.read()
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
