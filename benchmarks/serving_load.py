"""The clients of the serving benchmark: raw sockets whose reads are timed, and parsed afterwards.

A client library would cost more than the server that is measured. Knows a server by its address
and by the body it wants; knows nothing of engines.
"""

import asyncio
import json
import random
import re
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tunery.datasets.rendering import ChatRenderer

_EVENT = re.compile(rb"^(?:data: )?(\{.*\})\r?$", re.MULTILINE)
_WORDS = re.findall(
    r"\w+",
    """account address answer balance board book box branch bridge call camera car card case chair
    city claim clock code courier damage date day delivery desk device door email error evening
    exchange fee file filter form garden guide hour house invoice key label lamp letter light list
    machine manual message model morning name neighbour note number office order package page paper
    password payment phone photo plan police policy price printer receipt refund repair report
    return room screen sister system table ticket time train transfer trip village water""",
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation, and the ids that it is rendered to."""

    messages: list[dict[str, str]]
    ids: list[int]


class Prompts:
    """Makes prompts of an exact length that share nothing but the template's first tokens."""

    def __init__(self, renderer: ChatRenderer, seed: int) -> None:
        self._renderer = renderer
        self._random = random.Random(seed)
        ids = renderer.tokenizer.text_ids
        self._words = [word for word in _WORDS if len(ids(f" {word}")) == len(ids(word)) == 1]
        self._around = len(renderer.prompt(self._messages("", "")))

    def text(self, tokens: int) -> str:
        """Return a text of that many tokens: one a word."""
        return " ".join(self._random.choices(self._words, k=tokens))

    def make(self, tokens: int, system: str | None = None, system_tokens: int = 16) -> Prompt:
        """Return a prompt of `tokens` tokens, template included, `system_tokens` of them first."""
        question = self.text(tokens - self._around - system_tokens)
        messages = self._messages(self.text(system_tokens) if system is None else system, question)
        ids = self._renderer.prompt(messages)
        assert len(ids) == tokens, (len(ids), tokens)
        return Prompt(messages, ids)

    @staticmethod
    def _messages(system: str, question: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": system}, {"role": "user", "content": question}]


@dataclass(frozen=True, slots=True)
class Target:
    """A server: `body` makes what asks it, of a prompt, an adapter's number and a token count."""

    name: str
    url: str
    path: str
    key: str
    body: Callable[[Prompt, int | None, int], dict[str, Any]]
    adapters: int

    def request(self, prompt: Prompt, adapter: int | None, tokens: int) -> bytes:
        """Return the bytes that ask for an answer."""
        content = json.dumps(self.body(prompt, adapter, tokens)).encode()
        headers = {"content-type": "application/json"}
        return request(self.url, "POST", self.path, self.key, content, headers)


def request(
    url: str, method: str, path: str, key: str, content: bytes, headers: dict[str, str]
) -> bytes:
    """Return a request's bytes; the connection is to end with the answer."""
    lines = {
        "host": url.removeprefix("http://"),
        "connection": "close",
        "authorization": f"Bearer {key}",
        "content-length": str(len(content)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


@dataclass(slots=True)
class Exchange:
    """What was read of one answer, and when; seconds of `time.perf_counter`."""

    started: float
    reads: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def raw(self) -> bytes:
        return b"".join(data for _, data in self.reads)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer's figures: seconds, and tokens as the server counts them."""

    first_s: float
    gaps_s: list[float]
    prompt_tokens: int | None
    tokens: int


async def send(url: str, content: bytes) -> Exchange:
    """Send a request's bytes and read until the server closes; end the run if it refuses."""
    host, _, port = url.removeprefix("http://").partition(":")
    exchange = Exchange(time.perf_counter())
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(content)
    while data := await reader.read(1 << 16):
        exchange.reads.append((time.perf_counter(), data))
    writer.close()
    if not exchange.raw.startswith(b"HTTP/1.1 200"):
        sys.exit(f"serving: {url} answered {exchange.raw[:400]!r} to {content[:80]!r}")
    return exchange


def parse(exchange: Exchange, wanted: int) -> Answer:
    """Return an answer's figures; end the run where it has not `wanted` tokens."""
    raw, ends, total = exchange.raw, [], 0
    for _, data in exchange.reads:
        total += len(data)
        ends.append(total)
    came: list[float] = []
    tokens, prompt_tokens = 0, None
    for event in _EVENT.finditer(raw, raw.index(b"\r\n\r\n") + 4):
        value = json.loads(event[1])
        if "error" in value:
            sys.exit(f"serving: an answer failed: {value['error']}")
        if _text(value):
            came.append(exchange.reads[bisect_left(ends, event.end(1))][0])
        tokens = value.get("completion_tokens", tokens)
        if value.get("usage"):
            tokens = value["usage"]["completion_tokens"]
            prompt_tokens = value["usage"]["prompt_tokens"]
    if tokens != wanted or not came:
        sys.exit(f"serving: an answer has {tokens} tokens, needed {wanted}: {raw[-600:]!r}")
    gaps = [after - before for before, after in pairwise(came)]
    return Answer(came[0] - exchange.started, gaps, prompt_tokens, tokens)


def _text(value: dict[str, Any]) -> str:
    if "text" in value:
        return str(value["text"])
    choices = value.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


async def measure(
    target: Target, requests: Iterable[bytes], clients: int, tokens: int
) -> dict[str, Any]:
    """Return the figures of `requests`, asked by so many clients, each one after another."""
    waiting, done = iter(requests), list[Exchange]()

    async def client() -> None:
        for content in waiting:
            done.append(await send(target.url, content))

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    spent, cpu = time.perf_counter() - started, time.process_time() - cpu
    answers = [parse(exchange, tokens) for exchange in done]
    first_p50, first_p95 = percentiles([answer.first_s for answer in answers])
    gap_p50, gap_p95 = percentiles([gap for answer in answers for gap in answer.gaps_s])
    counted = [a.prompt_tokens for a in answers if a.prompt_tokens is not None]
    return {
        "requests": len(answers),
        "tokens_per_s": sum(answer.tokens for answer in answers) / spent,
        "ttft_p50_ms": first_p50,
        "ttft_p95_ms": first_p95,
        "itl_p50_ms": gap_p50,
        "itl_p95_ms": gap_p95,
        "prompt_tokens": statistics.mean(counted) if counted else None,
        "client_cpu": cpu / spent,  # of one core: near 1 it is the clients that are measured
    }


@asynccontextmanager
async def busy(target: Target, make: Callable[[], bytes], clients: int) -> AsyncIterator[None]:
    """Keep so many clients asking while the block runs."""

    async def client() -> None:
        while True:
            await send(target.url, make())

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        await asyncio.sleep(2)  # until prompts and answers are mixed
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if not isinstance(error, asyncio.CancelledError):
            raise error if isinstance(error, BaseException) else AssertionError(error)


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p95 in milliseconds."""
    if len(seconds) == 1:
        return seconds[0] * 1000, seconds[0] * 1000
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[94] * 1000
