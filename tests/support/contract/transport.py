"""A transport that lets nothing through to the SDK which breaks the contract.

Answers of JSON are checked whole before the SDK sees them; streams are checked event by event as
they pass, and at their end.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx2

from support.contract import sdk
from support.contract.broken import ContractBroken
from support.contract.endpoints import Body, Ending, Endpoint, endpoint_of
from support.contract.spec import openai_spec

JSON, EVENTS = "application/json", "text/event-stream"
PREFIX = "/v1"
TYPED_ENDINGS = (
    "response.completed",
    "response.failed",
    "response.incomplete",
    "response.cancelled",
    "error",
)


class CheckedTransport(httpx2.BaseTransport):
    """Passes requests on, and checks what comes back."""

    def __init__(self, inner: httpx2.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the checked answer."""
        response = self._inner.handle_request(request)
        endpoint = _endpoint(request)
        content_type = response.headers.get("content-type", "").partition(";")[0]
        assert isinstance(response.stream, httpx2.SyncByteStream)
        stream: httpx2.SyncByteStream = response.stream
        if content_type == EVENTS and response.is_success and endpoint is not None:
            stream = CheckedEvents(stream, endpoint)
        elif content_type == JSON or not response.is_success:
            try:
                body = b"".join(response.stream)
            finally:
                response.stream.close()
            stream = httpx2.ByteStream(body)
            check_answer(request, endpoint, response.status_code, content_type, body)
        elif endpoint is None or endpoint.answer is not Body.BYTES:
            response.stream.close()
            raise ContractBroken(f"{_what(request)}: answered with {content_type or 'nothing'}")
        check_headers(request, response)
        if response.is_success and endpoint is not None:
            check_request(request, endpoint)
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=stream,
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close what is behind it."""
        self._inner.close()


def check_answer(
    request: httpx2.Request, endpoint: Endpoint | None, status: int, content_type: str, body: bytes
) -> None:
    """Raise ContractBroken unless a whole answer is what the contract says."""
    what, spec = _what(request), openai_spec()
    if content_type != JSON:
        raise ContractBroken(f"{what}: {status} with {content_type or 'nothing'}, not JSON")
    if status >= 400:
        sdk.check(sdk.ErrorEnvelope, body, f"{what}: {status}")
        if spec is not None:
            spec.check_error(json.loads(body), what)
        return
    if endpoint is None:
        raise ContractBroken(
            f"{what}: answered with {status}, and is not in the table of endpoints"
        )
    if status != 200:
        raise ContractBroken(f"{what}: answered with {status}; OpenAI answers with 200")
    if endpoint.answer is Body.BYTES:
        raise ContractBroken(f"{what}: answered with JSON where bytes belong")
    if _json_of(request).get("stream"):
        raise ContractBroken(f"{what}: asked for a stream, answered whole")
    sdk.check(endpoint.answer, body, what)
    if spec is not None and not endpoint.ours:
        spec.check_answer(endpoint, JSON, json.loads(body))


def check_request(request: httpx2.Request, endpoint: Endpoint) -> None:
    """Raise ContractBroken if a request was taken that OpenAI's document refuses."""
    spec, body = openai_spec(), _json_of(request)
    if spec is not None and body and not endpoint.ours:
        spec.check_request(endpoint, body)


def check_headers(request: httpx2.Request, response: httpx2.Response) -> None:
    """Raise ContractBroken unless the answer has the headers that every answer has."""
    headers = response.headers
    if (
        not headers.get("x-request-id", "").startswith("req_")
        or not headers.get("openai-processing-ms", "").isdigit()
        or "openai-version" not in headers
    ):
        raise ContractBroken(f"{_what(request)}: a header of OpenAI's is missing: {dict(headers)}")


class CheckedEvents(httpx2.SyncByteStream):
    """A stream of events: a piece is passed on once the events that it completes are checked."""

    def __init__(self, inner: httpx2.SyncByteStream, endpoint: Endpoint) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._ended = False
        if endpoint.events is None:
            raise ContractBroken(f"{endpoint}: streamed, where OpenAI does not")

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        for piece in self._inner:
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                self._check(event)
            yield piece
        if rest or not self._ended:
            raise ContractBroken(f"{self._endpoint}: the stream ends without its end: {rest!r}")

    def close(self) -> None:
        """Close the stream; one that is left early need not have ended."""
        self._inner.close()

    def _check(self, event: bytes) -> None:
        if self._ended:
            raise ContractBroken(f"{self._endpoint}: an event after the last: {event!r}")
        name, data = self._parts(event)
        if data == b"[DONE]":
            self._ended = True
            if self._endpoint.ending is not Ending.DONE or name is not None:
                raise ContractBroken(f"{self._endpoint}: [DONE] does not belong here")
            return
        try:
            value = json.loads(data)
        except ValueError:
            raise ContractBroken(f"{self._endpoint}: not JSON: {event!r}") from None
        if self._endpoint.ending is Ending.DONE and "error" in value:
            self._ended = True
            sdk.check(sdk.ErrorEnvelope, data, str(self._endpoint))
            return
        sdk.check(self._endpoint.events, data, str(self._endpoint))
        spec = openai_spec()
        if spec is not None:
            spec.check_answer(self._endpoint, EVENTS, value)
        if self._endpoint.ending is Ending.TYPED:
            if name != value["type"]:
                raise ContractBroken(f"{self._endpoint}: the event {name!r} says {data!r}")
            self._ended = name in TYPED_ENDINGS

    def _parts(self, event: bytes) -> tuple[str | None, bytes]:
        """Return an event's name and data; raise ContractBroken for any other form."""
        fields = [line.partition(b": ")[::2] for line in event.split(b"\n")]
        wanted = [b"event", b"data"] if self._endpoint.ending is Ending.TYPED else [b"data"]
        named = [name for name, _ in fields]
        if named != wanted and not (named == [b"data"] and fields[0][1] == b"[DONE]"):
            raise ContractBroken(f"{self._endpoint}: not an event of OpenAI's form: {event!r}")
        return (fields[0][1].decode() if len(fields) == 2 else None), fields[-1][1]


def _endpoint(request: httpx2.Request) -> Endpoint | None:
    path = request.url.path
    return (
        endpoint_of(request.method, path.removeprefix(PREFIX)) if path.startswith(PREFIX) else None
    )


def _what(request: httpx2.Request) -> str:
    return f"{request.method} {request.url.path}"


def _json_of(request: httpx2.Request) -> dict[str, Any]:
    """Return the request's JSON object, or an empty one where it has none."""
    if not request.headers.get("content-type", "").startswith(JSON):
        return {}
    body = request.read()
    value = json.loads(body) if body else {}
    return value if isinstance(value, dict) else {}
