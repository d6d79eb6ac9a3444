"""The Idempotency-Key header: a creation that is sent again makes nothing new.

Kept are digests of key and request, the status and the object's id, for a day; never a body.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from fastapi import Request

from tunery.domain.errors import InvalidRequest
from tunery.domain.once import OnceKey
from tunery.protocol.base import Request as WireRequest

_MAX_KEY = 255


def once_key(request: Request, *parts: WireRequest | str) -> OnceKey | None:
    """Return the request's key and what is asked under it, or None where it came without one.

    `parts` are what decides the request beside its method and path: the body, or its fields and
    the digest of its file.
    """
    return _key(request, lambda: map(_bytes, parts))


def once_key_of(request: Request, value: Any) -> OnceKey | None:
    """Return the request's key where its whole body is this JSON value."""
    return _key(request, lambda: [_canonical(value)])


def _key(request: Request, parts: Callable[[], Iterable[bytes]]) -> OnceKey | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY:
        raise InvalidRequest(
            f"The Idempotency-Key has {len(key)} characters; it needs 1 to {_MAX_KEY}.",
            param="Idempotency-Key",
        )
    digest = hashlib.sha256(f"{request.method} {request.url.path}".encode())
    for part in parts():
        digest.update(b"\0" + hashlib.sha256(part).digest())
    return OnceKey(hashlib.sha256(key.encode()).digest(), digest.digest())


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # what was read as JSON fails for its depth alone
        raise InvalidRequest("The body is nested too deeply for an Idempotency-Key.") from None


def _bytes(part: WireRequest | str) -> bytes:
    if isinstance(part, str):
        return part.encode()
    return _canonical(part.model_dump(mode="json", exclude_unset=True))
