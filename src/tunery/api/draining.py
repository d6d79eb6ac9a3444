"""The end of the service in order: what was begun is answered, what comes later is refused."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from tunery.api.errors import answer_of
from tunery.domain.errors import Unavailable


@dataclass(slots=True)
class Drain:
    """Whether the service is ending, and how many requests it still has."""

    begun: bool = False
    active: int = 0


class Draining:
    """Counts requests, and refuses new ones once the service is ending."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app, self._drain = app, drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._drain.begun:
            refusal = answer_of(Unavailable("The service is stopping; ask again.", retry_after_s=1))
            refusal.headers["connection"] = "close"
            await refusal(scope, receive, send)
            return
        self._drain.active += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._drain.active -= 1
