"""The headers that every answer carries, whoever makes it: an ASGI layer around the application."""

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunery.domain.ids import new_id

OPENAI_VERSION = "2020-10-01"


class ResponseHeaders:
    """Gives each request an id, and puts it on the answer with the time that it took."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req_")
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started = time.monotonic()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-version"] = OPENAI_VERSION
                headers["openai-processing-ms"] = str(round((time.monotonic() - started) * 1000))
                if "organization" in state:
                    headers["openai-organization"] = state["organization"]
            await send(message)

        await self._app(scope, receive, send_with_headers)
