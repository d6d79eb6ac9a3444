"""Posts to checked addresses: straight there, no proxy, no redirection, everything bounded."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping

import httpx2

from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.delivery import NotDelivered
from tunery.outgoing.addresses import Guard, Target

DEADLINE_S = 15.0  # for one request, from the look-up of the name to the end of the answer
_MAX_ANSWER_BYTES = 64 * 1024
_MAX_ADDRESSES = 3  # of a host, tried one after the other
_USER_AGENT = "tunery"


class GuardedSender:
    """A Sender that asks the guard at each request, and connects to what the guard has seen."""

    def __init__(self, guard: Guard, *, deadline_s: float = DEADLINE_S) -> None:
        self._guard = guard
        self._deadline_s = deadline_s
        self._tls = httpx2.create_ssl_context()

    async def check(self, url: str) -> None:
        """Raise InvalidRequest where nothing may be sent to."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._guard.target(url)
        except TimeoutError:
            raise InvalidRequest(
                f"Invalid 'url': its host's name was not resolved within {self._deadline_s:g} s.",
                param="url",
            ) from None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send `body` and return the answer's status."""
        try:
            async with asyncio.timeout(self._deadline_s):
                target = await self._guard.target(url)
                return await self._first_answer(target, headers, body)
        except (TimeoutError, httpx2.TimeoutException):
            raise NotDelivered(f"no answer within {self._deadline_s:g} s") from None
        except httpx2.ConnectError as error:
            raise NotDelivered(_connect_reason(error)) from None
        except (httpx2.TransportError, ssl.SSLError, OSError):
            raise NotDelivered("the connection broke before an answer") from None

    async def _first_answer(self, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        addresses = target.addresses[:_MAX_ADDRESSES]
        for address in addresses[:-1]:
            with contextlib.suppress(httpx2.ConnectError, httpx2.ConnectTimeout):
                return await self._post(target, address, headers, body, len(addresses))
        return await self._post(target, addresses[-1], headers, body, len(addresses))

    async def _post(
        self, target: Target, address: str, headers: Mapping[str, str], body: bytes, count: int
    ) -> int:
        # A client of its own: no connection is ever shared between two hosts at one address.
        async with httpx2.AsyncClient(
            verify=self._tls,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(self._deadline_s, connect=self._deadline_s / count),
        ) as client:
            request = client.build_request(
                "POST",
                target.url.copy_with(host=address),
                content=body,
                headers={
                    **headers,
                    "host": target.url.netloc.decode("ascii"),
                    "user-agent": _USER_AGENT,
                    "accept-encoding": "identity",
                },
                extensions={"sni_hostname": target.host.rstrip(".")},
            )
            response = await client.send(request, stream=True)
            with contextlib.suppress(TimeoutError, httpx2.TransportError):
                await _read_some(response)
            return response.status_code


async def _read_some(response: httpx2.Response) -> None:
    """Read an answer that is short, so that its sender sees it taken; leave the rest."""
    size = 0
    try:
        async with asyncio.timeout(1.0):
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > _MAX_ANSWER_BYTES:
                    return
    finally:
        await response.aclose()


def _connect_reason(error: httpx2.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its TLS certificate is not trusted, or is for another host"
        if isinstance(cause, ssl.SSLError):
            return "no TLS connection could be made"
        cause = cause.__cause__ or cause.__context__
    return "no connection could be made"
