"""Keys that have just opened something: their next requests need not ask the database."""

import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from tunery.domain.tenants import ApiKey
from tunery.services import accounts
from tunery.storage.database import Database

KNOWN_S = 1.0  # a revoked key opens nothing, in any process, once this has passed
_AT_MOST = 10_000  # keys


class KnownKeys:
    """Authenticates. What is remembered is found by HMAC: no secret stays in memory."""

    def __init__(
        self, database: Database, pepper: bytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._known: dict[bytes, tuple[ApiKey, float]] = {}

    async def authenticate(self, secret: str | None) -> ApiKey:
        """Return the key that a request came with; raise Unauthenticated where it opens nothing."""
        mark = accounts.secret_hmac(self._pepper, secret or "")
        key, until = self._known.get(mark, (None, 0.0))
        now = self._clock()  # before the look-up: what is revoked after it counts from here
        if key is not None and now < until:
            return key
        self._known.pop(mark, None)
        key = await run_in_threadpool(accounts.authenticate, self._database, self._pepper, secret)
        if len(self._known) >= _AT_MOST:
            self._known.clear()
        self._known[mark] = key, now + KNOWN_S
        return key
