"""A proxy in front of a tunery that makes it behave as OpenAI's real service was seen to.

Small pages whatever is asked for, fields that are missing, result files as base64 text, 429 with
Retry-After, 5xx, connections that are cut in the middle of a body, files that have expired.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2

PAGE = 2  # items that the proxy lets through at once


@dataclass(slots=True)
class Quirks:
    """What the proxy does to requests, and what it has seen. May be changed between requests."""

    target: str
    failures: dict[str, list[int | str]] = field(default_factory=dict)
    """By a part of the path: what each request there meets first: a status, or `cut`."""
    gone: set[str] = field(default_factory=set)
    """Parts of paths that are 404."""
    dropped: dict[str, set[str]] = field(default_factory=dict)
    """By object: the fields that its answers lack. `list` has `has_more`."""
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By id: the values that fields have there."""
    models: list[dict[str, Any]] = field(default_factory=list)
    """More entries of /models."""
    usage: dict[str, Any] | None = None
    """What /organization/usage/completions answers; None refuses the key."""
    before: Callable[[int, str], None] | None = None
    """Called before each request is answered, with its number from 1 and its path."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def counts(self) -> Counter[str]:
        """Return how often each path was asked for."""
        return Counter(path for _, path in self.seen)

    def failure(self, path: str) -> int | str | None:
        """Return what the next request of this path meets, if anything."""
        with self.lock:
            for part, planned in self.failures.items():
                if part in path and planned:
                    return planned.pop(0)
        return None

    def shown(self, value: Any) -> Any:
        """Return an object as the real service would write it."""
        if isinstance(value, list):
            return [self.shown(one) for one in value]
        if not isinstance(value, dict):
            return value
        kept = self.dropped.get(value.get("object", ""), set())
        changes = self.changed.get(value.get("id", ""), {})
        return {k: self.shown(v) for k, v in (value | changes).items() if k not in kept}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one(self) -> None:
        quirks, path = self.server.quirks, urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with quirks.lock:
            quirks.seen.append((self.command, path))
            quirks.keys.add(self.headers.get("authorization", ""))
            number = len(quirks.seen)
        if quirks.before is not None:
            quirks.before(number, path)
        failure = quirks.failure(path)
        if isinstance(failure, int):
            self._error(failure)
        elif any(part in path for part in quirks.gone):
            self._error(404)
        elif "/organization/usage" in path:
            if quirks.usage is None:
                self._error(403)
            else:
                self._send(200, json.dumps(quirks.usage).encode())
        else:
            self._forward(quirks, path, body, cut=failure == "cut")

    do_GET = do_POST = do_DELETE = handle_one  # noqa: N815 - http.server's names

    def _forward(self, quirks: Quirks, path: str, body: bytes, *, cut: bool) -> None:
        query = dict(parse_qsl(urlsplit(self.path).query))
        if "limit" in query:
            query["limit"] = str(min(PAGE, int(query["limit"])))
        response = self.server.client.request(
            self.command,
            f"{quirks.target}{path}" + (f"?{urlencode(query)}" if query else ""),
            content=body,
            headers={
                name: self.headers[name]
                for name in ("authorization", "content-type")
                if name in self.headers
            },
        )
        data = response.content
        if not path.endswith("/content"):
            value = response.json()
            if path.endswith("/models"):
                value["data"] += quirks.models
            data = json.dumps(quirks.shown(value)).encode()
        self._send(response.status_code, data, cut=cut)

    def _error(self, status: int) -> None:
        message = {401: f"Incorrect API key provided: {self.headers.get('authorization')}"}.get(
            status, f"the proxy's {status}"
        )
        error = {"message": message, "type": "test", "param": None, "code": None}
        self._send(status, json.dumps({"error": error}).encode())

    def _send(self, status: int, data: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.send_header("content-type", "application/json")
        if status == 429:
            self.send_header("retry-after", "0")
        if cut:
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, quirks: Quirks, client: httpx2.Client) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.quirks = quirks
        self.client = client

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away: the tests kill them."""


@contextmanager
def proxy(target: str) -> Iterator[Quirks]:
    """Run a proxy in front of the service at `target`, without /v1."""
    quirks = Quirks(target)
    with httpx2.Client(trust_env=False, timeout=60) as client, _Server(quirks, client) as server:
        quirks.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield quirks
        finally:
            server.shutdown()
            thread.join()
