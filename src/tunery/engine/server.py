"""The engine's own small server: loopback HTTP with a secret, JSON lines out.

It trusts nothing it is sent: every number is checked before the scheduler sees it.
"""

import asyncio
import hashlib
import hmac
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, Strict
from starlette.types import Receive, Scope, Send

from tunery.datasets.grammars import MAX_GRAMMAR_BYTES
from tunery.datasets.text import TextStream
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import InvalidRequest, Overloaded, TuneryError
from tunery.domain.ports.engine import Delta
from tunery.engine.between_steps import between_steps
from tunery.engine.grammar import GrammarCompiler
from tunery.engine.row import Row
from tunery.engine.sampling import Sampling
from tunery.engine.scheduler import NotResident, Scheduler, idle_callback
from tunery.model import adapter_file

MAX_ADAPTER_BYTES = 512 * 1024 * 1024
MAX_BIASES = 1024
TokenId = Annotated[int, Field(ge=0)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class _RowStream(StreamingResponse):
    """An answer's lines; a client that goes away at any moment cancels the row."""

    def __init__(self, lines: AsyncIterator[bytes], cancel: Callable[[], None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._cancel()


class GenerateBody(BaseModel):
    """A generation, as the engine's client sends it."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    prompt_ids: list[TokenId] = Field(min_length=1)
    base_digest: str
    adapter: str | None
    max_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0, le=2)
    top_p: float = Field(ge=0, le=1)
    stop: list[str] = Field(max_length=16)
    seed: int | None = Field(ge=-(2**63), lt=2**63)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: list[Annotated[tuple[TokenId, Bias], Strict(False)]] = Field(
        default=[], max_length=MAX_BIASES
    )
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    grammar: str | None = Field(default=None, max_length=MAX_GRAMMAR_BYTES)
    tenant: str = ""


class ScoreBody(BaseModel):
    """Texts to score, as the engine's client sends them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token_ids: list[Annotated[list[TokenId], Field(min_length=2)]] = Field(min_length=1)
    base_digest: str
    adapter: str | None


class LikelihoodsBody(BaseModel):
    """A text whose tokens' likelihoods are asked for, as the engine's client sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token_ids: Annotated[list[TokenId], Field(min_length=2)]
    base_digest: str
    adapter: str | None
    top: int = Field(ge=0, le=20)
    tenant: str = ""


class EngineServer:
    """Stands between HTTP's event loop and the scheduler's thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        tokenizer: TextTokenizer,
        *,
        base_digest: str,
        vocabulary: int,
        context_tokens: int,
        secret: str,
    ) -> None:
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._base_digest = base_digest
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._secret = secret
        self._grammars = GrammarCompiler(tokenizer, vocabulary)

    def app(self) -> FastAPI:
        """Return the application."""
        app = FastAPI(openapi_url=None, dependencies=[Depends(self._authorize)])
        app.post("/generate")(self.generate)
        app.post("/score")(self.score)
        app.post("/likelihoods")(self.likelihoods)
        app.put("/adapters")(self.load)
        app.delete("/adapters")(self.unload)
        app.get("/health")(self.health)
        app.add_exception_handler(TuneryError, _refuse)
        app.add_exception_handler(RequestValidationError, _refuse_body)
        return app

    def _authorize(self, authorization: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(authorization.encode(), f"Bearer {self._secret}".encode()):
            raise HTTPException(401, "This engine answers to its own service only.")

    async def generate(self, body: GenerateBody, request: Request) -> StreamingResponse:
        """Stream an answer as JSON lines; a client that goes away cancels it."""
        self._check(body.base_digest, body.prompt_ids, body.max_tokens)
        self._check_biases(body.logit_bias)
        grammar = None if body.grammar is None else await self._grammars.compile(body.grammar)
        loop = asyncio.get_running_loop()
        results: asyncio.Queue[Delta | TuneryError | None] = asyncio.Queue()

        def deliver(result: Delta | TuneryError | None) -> None:
            loop.call_soon_threadsafe(results.put_nowait, result)

        row = Row(
            prompt_ids=body.prompt_ids,
            adapter=body.adapter,
            max_tokens=body.max_tokens,
            sampling=Sampling(
                body.temperature,
                body.top_p,
                body.seed,
                body.presence_penalty,
                body.frequency_penalty,
                tuple(body.logit_bias),
                body.top_logprobs,
                grammar,
            ),
            text=TextStream(self._tokenizer, tuple(body.stop)),
            on_delta=deliver,
            on_end=deliver,
            tenant=body.tenant,
        )
        await self._on_scheduler(lambda: self._scheduler.submit(row))
        return _RowStream(self._lines(row, results), lambda: self._cancel(row))

    async def _lines(
        self, row: Row, results: "asyncio.Queue[Delta | TuneryError | None]"
    ) -> AsyncIterator[bytes]:
        try:
            while (result := await results.get()) is not None:
                if isinstance(result, TuneryError):
                    yield orjson.dumps({"error": result.message, "code": result.code}) + b"\n"
                    return
                told = replace(result, cached_tokens=row.cached)
                yield orjson.dumps(told, default=bytes.hex) + b"\n"
        finally:
            self._cancel(row)

    def _cancel(self, row: Row) -> None:
        """Have the scheduler drop the row, if it is not at its end."""
        row.cancelled = True
        self._scheduler.call(idle_callback)  # wakes the scheduler up to see it

    async def score(self, body: ScoreBody) -> list[list[float]]:
        """Return log-probabilities, computed by the path that answers requests."""
        for ids in body.token_ids:
            self._check(body.base_digest, ids, 0)
        rows = (self._scored(ids, body.adapter) for ids in body.token_ids)
        return [row.scores or [] for row in await asyncio.gather(*rows)]

    async def likelihoods(self, body: LikelihoodsBody) -> Response:
        """Return how likely each token but the first is, and the likeliest ones in its place."""
        self._check(body.base_digest, body.token_ids, 0)
        row = await self._scored(body.token_ids, body.adapter, body.top, body.tenant)
        told = orjson.dumps(row.untold, default=bytes.hex)
        return Response(told, media_type="application/json")

    async def _scored(
        self, ids: list[int], adapter: str | None, top: int | None = None, tenant: str = ""
    ) -> Row:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def ended(error: TuneryError | None) -> None:
            def settle() -> None:
                if not done.done():
                    done.set_exception(error) if error else done.set_result(None)

            loop.call_soon_threadsafe(settle)

        row = Row(
            prompt_ids=ids,
            adapter=adapter,
            max_tokens=0,
            sampling=Sampling(0, 1, None, top_logprobs=top),
            text=None,
            on_delta=idle_callback,
            on_end=ended,
            scores=[],
            tenant=tenant,
        )
        await self._on_scheduler(lambda: self._scheduler.submit(row))
        try:
            await done
        finally:
            row.cancelled = True
        return row

    async def load(
        self, request: Request, name: str, x_adapter_config: Annotated[str, Header()]
    ) -> dict[str, bool]:
        """Take an adapter's files: the name ends with the digest that the body must have."""
        weights = bytearray()
        async for chunk in request.stream():
            weights += chunk
            if len(weights) > MAX_ADAPTER_BYTES:
                raise HTTPException(413, f"An adapter is at most {MAX_ADAPTER_BYTES} bytes.")
        data = bytes(weights)
        if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), name.rpartition("@")[2]):
            raise HTTPException(400, "The adapter's bytes do not have the digest of its name.")
        stack = self._scheduler.adapters
        config = x_adapter_config.encode()

        def read_and_place() -> None:
            try:
                stack.load(name, adapter_file.read(data, config, stack.shapes, stack.max_rank))
            except adapter_file.BadAdapter as error:
                raise TuneryError(str(error), code="bad_adapter") from None

        await self._on_scheduler(read_and_place)
        return {"resident": True}

    async def unload(self, name: str) -> dict[str, bool]:
        """Let go of an adapter; one in use stays, and is the first to make room later."""
        return {"unloaded": await self._on_scheduler(lambda: self._scheduler.adapters.unload(name))}

    async def health(self) -> dict[str, Any]:
        """Return what the engine holds and does."""
        return {
            "base_digest": self._base_digest,
            "adapters_resident": len(self._scheduler.adapters),
            "rows_active": self._scheduler.active,
            "rows_waiting": self._scheduler.waiting,
            "adapter_loads": self._scheduler.adapters.loads,
            "adapter_evictions": self._scheduler.adapters.evictions,
        }

    def _check(self, base_digest: str, ids: list[int], answer_tokens: int) -> None:
        if base_digest != self._base_digest:
            raise TuneryError(
                f"This engine serves base {self._base_digest[:12]}, not {base_digest[:12]}.",
                code="wrong_base",
            )
        if len(ids) + answer_tokens > self._context_tokens or max(ids) >= self._vocabulary:
            raise HTTPException(
                400,
                f"Got {len(ids)} + {answer_tokens} tokens, highest id {max(ids)}; this engine takes"
                f" {self._context_tokens} tokens with ids below {self._vocabulary}.",
            )

    def _check_biases(self, biases: list[tuple[int, float]]) -> None:
        ids = {token for token, _ in biases}
        if len(ids) < len(biases):
            raise HTTPException(400, "Got a logit bias twice for one token; send each id once.")
        if ids and max(ids) >= self._vocabulary:
            raise HTTPException(
                400,
                f"Got a logit bias for token {max(ids)}; this engine takes ids below"
                f" {self._vocabulary}.",
            )

    async def _on_scheduler(self, action: Callable[[], Any]) -> Any:
        """Run `action` between two steps and return its result."""
        return await between_steps(self._scheduler.call, action)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TuneryError)  # noqa: S101 - registered for this type
    kinds = ((NotResident, 404), (Overloaded, 503), (InvalidRequest, 400))
    status = next((code for kind, code in kinds if isinstance(error, kind)), 409)
    return JSONResponse({"detail": error.message, "code": error.code}, status_code=status)


async def _refuse_body(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong without saying the value again: it may be long, or no JSON (NaN)."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type
    found = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return JSONResponse({"detail": "; ".join(found)}, status_code=422)


def start_thread(build: Callable[[], Scheduler]) -> Scheduler:
    """Build a scheduler and run it, on one new thread; return it once it is ready."""
    ready = threading.Event()
    box: list[Scheduler | BaseException] = []

    def work() -> None:
        try:
            scheduler = build()
        except BaseException as error:
            box.append(error)
            ready.set()
            return
        box.append(scheduler)
        ready.set()
        scheduler.run()

    threading.Thread(target=work, name="scheduler", daemon=True).start()
    ready.wait()
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]
