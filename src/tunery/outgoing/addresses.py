"""Which addresses outside may be asked: not ours, not our neighbours', not a cloud's own.

A name is resolved here, every address that it stands for is checked, and the caller connects to
one of those: a name that comes to mean another address in between changes nothing. Knows no
protocol but the two schemes.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import httpx2

from tunery.domain.errors import InvalidRequest

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host's name and a port, returns addresses; raises OSError where there are none."""

NOT_ALLOWED, NOT_RESOLVED = "url_not_allowed", "url_not_resolved"
_PORTS = {"http": 80, "https": 443}
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
# What clouds tell their own machines at: credentials among it.
_CLOUD = frozenset(
    map(
        ipaddress.ip_address,
        (
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd20:ce::254",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, and the addresses that its host had when they were checked."""

    url: httpx2.URL
    host: str
    addresses: tuple[str, ...]


class Guard:
    """Lets through what may be asked."""

    def __init__(self, *, allow_private: bool, resolve: Resolve | None = None) -> None:
        """`allow_private` lets plain HTTP, loopback and private networks through."""
        self._allow_private = allow_private
        self._resolve = resolve or SystemResolver().resolve

    async def target(self, url: str, param: str = "url") -> Target:
        """Return where `url` leads; raise InvalidRequest, naming `param`, where it may not."""
        try:
            parsed = self._parsed(url)
            host = _host(parsed)
            literal = _literal(host)
            if literal is not None:
                addresses: Sequence[str] = [str(literal)]
            else:
                port = parsed.port or _PORTS[parsed.scheme]
                addresses = await self._resolve(host, port)
            for address in addresses:
                reason = refusal(address, allow_private=self._allow_private)
                if reason is not None:
                    raise _Refused(f"its host stands for {reason}")
        except _Refused as refused:
            raise InvalidRequest(
                f"Invalid '{param}': {refused}.", param=param, code=NOT_ALLOWED
            ) from None
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses:
            raise InvalidRequest(
                f"Invalid '{param}': its host has no address that could be found; check the name.",
                param=param,
                code=NOT_RESOLVED,
            )
        return Target(parsed, host, tuple(addresses))

    def _parsed(self, url: str) -> httpx2.URL:
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError):
            raise _Refused("this is no URL") from None
        allowed = ("https", "http") if self._allow_private else ("https",)
        if parsed.scheme not in allowed:
            raise _Refused(f"it needs to begin with {' or '.join(f'{s}://' for s in allowed)}")
        if parsed.userinfo:
            raise _Refused("it carries a user name or password; leave them out")
        if parsed.port is not None and not 1 <= parsed.port <= 65535:
            raise _Refused("its port needs to be 1 to 65535")
        return parsed


class SystemResolver:
    """Asks this machine's resolver, on threads of its own: a slow one holds up nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(32, thread_name_prefix="resolver")

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the host's addresses."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def refusal(address: str, *, allow_private: bool) -> str | None:
    """Return why `address` may not be asked, in a few words, or None where it may.

    Loopback and private networks can be allowed. Link-local addresses, where clouds keep their
    machines' credentials, cannot, nor those that name no machine.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "no address that is known"
    for one in (parsed, *_embedded(parsed)):
        reason = _refusal(one, allow_private)
        if reason is not None:
            return reason
    return None


def _refusal(address: IPv4Address | IPv6Address, allow_private: bool) -> str | None:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return None  # what they embed is judged instead
        if address.is_site_local:
            return None if allow_private else "a private address"
    if address.is_unspecified or address.is_multicast:
        return "no single machine"
    if address.is_link_local or address in _CLOUD:
        return "an address that only this network link knows"
    if address.is_loopback:
        return None if allow_private else "this machine"
    if address.is_reserved:
        return "a reserved address"
    if not address.is_global:
        return None if allow_private else "a private address"
    return None


def _embedded(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that packets to an IPv6 address may end up at."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [one for one in found if one is not None]


class _Refused(Exception):
    """What is wrong with a URL, to be read behind its parameter's name."""


def _host(url: httpx2.URL) -> str:
    """Return the host as it is to be resolved and connected to; raise _Refused for odd ones."""
    host = url.raw_host.decode("ascii", "replace").lower()
    if not host:
        raise _Refused("it names no host")
    if _literal(host) is not None and "%" not in host:
        return host
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise _Refused("its host is no name or address")
    labels = host.rstrip(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):  # 2130706433, 0x7f.1, 127.1: other spellings of an address
        raise _Refused("its host needs to be a name, or an address as four decimal numbers")
    return host


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
