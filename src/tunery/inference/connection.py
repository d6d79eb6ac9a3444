"""Requests to the embedded engine's process. Knows no route of it.

The engine writes its address and secret into a file when it is up; after a restart the file says
the new ones, so they are read again whenever the engine does not answer. A request says beside that
file that the engine is wanted, and waits for one that is being started.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson

from tunery.domain.errors import InvalidRequest, Overloaded, TuneryError, Unavailable
from tunery.domain.ports.engine import INVALID_GRAMMAR
from tunery.inference.places import Mark

_LOOK_S = 0.2  # between two tries


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
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(None, connect=2.0),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,  # loopback, whatever proxy the environment names
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def send(
        self, method: str, path: str, *, wakes: bool = True, **options: Any
    ) -> httpx2.Response:
        """Return the engine's response, not yet read; raise Unavailable where there is none.

        What `wakes` has an engine that is not up started, and waits for it. An engine that went
        away with the request is asked once more, and no oftener: the request may be why.
        """
        headers = options.pop("headers", {})
        deadline = time.monotonic() + max(self._start_s if wakes else 0.0, _LOOK_S)
        lost = 0
        while True:
            if wakes:
                self._mark.renew()
            try:
                address = self._address()
                request = self._client.build_request(
                    method,
                    address.url + path,
                    headers={**headers, "authorization": f"Bearer {address.secret}"},
                    **options,
                )
                return await self._client.send(request, stream=True)
            except (httpx2.TransportError, OSError, ValueError) as error:
                lost += isinstance(error, httpx2.TransportError) and not _refused(error)
                if lost > 1 or time.monotonic() >= deadline:
                    raise Unavailable(
                        "The engine of this model does not answer; it may be starting, or wait for"
                        " room. Try again.",
                        code="engine_unavailable",
                    ) from error
                await asyncio.sleep(_LOOK_S)

    async def checked(self, response: httpx2.Response) -> None:
        """Raise what a response that is no success says."""
        if response.is_success:
            return
        body = await response.aread()
        await response.aclose()
        try:
            value = orjson.loads(body)
            detail, code = value["detail"], value.get("code")
        except (ValueError, KeyError, TypeError):
            detail, code = f"HTTP {response.status_code}", None
        if code == INVALID_GRAMMAR:
            raise InvalidRequest(str(detail), code=code)
        if response.status_code == 503:
            raise Overloaded(str(detail))
        if response.status_code == 401:  # restarted since the address was read
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


def _refused(error: httpx2.TransportError) -> bool:
    """Return whether nobody was there to take the request."""
    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
