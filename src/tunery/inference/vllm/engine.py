"""An Engine over a vLLM server, which serves one base of the catalogue.

vLLM is asked for the base under a name that ends with the base's digest, and for an adapter under
one that ends with the adapter's, so that a server with other weights knows neither.
"""

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import Overloaded, TuneryError, Unavailable
from tunery.domain.jobs import Adapter
from tunery.domain.models import BaseModel
from tunery.domain.ports.engine import Delta, EngineHealth, Generation, TokenLogprob
from tunery.inference.vllm import wire
from tunery.inference.vllm.adapters import VllmAdapters
from tunery.inference.vllm.connection import (
    VllmConnection,
    broken_off,
    events,
    read,
    refusal,
)
from tunery.inference.vllm.folder import AdapterFolder, file_name

_OLDEST = (0, 18)  # the first whose adapters, salts and token ids are what is asked for here
_METRIC = re.compile(r"^vllm:num_requests_(running|waiting)\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)


def served_name(base: BaseModel) -> str:
    """Return the name that vLLM is to serve the base by: another base never has it."""
    return f"{base.name}@{base.digest[:16]}"


@dataclass(frozen=True, slots=True)
class _Served:
    """What a server said of itself when it was first asked."""

    version: str
    context_tokens: int
    adapters: int


class VllmEngine:
    """An Engine whose process is a vLLM server, started by us or by the operator."""

    def __init__(
        self,
        connection: VllmConnection,
        folder: AdapterFolder,
        *,
        base: Callable[[], BaseModel],
        tokenizer: Callable[[BaseModel], TextTokenizer],
        model: str | None,
        salt_key: bytes,
        most_requests: int,
    ) -> None:
        """`model` is what vLLM calls the base, where that is not its served name.

        `most_requests` are asked of it at a time; for more there is no room.
        """
        self._connection = connection
        self._adapters = VllmAdapters(connection, folder)
        self._base, self._tokenizer, self._model = base, tokenizer, model
        self._salt_key, self._most_requests = salt_key, most_requests
        self._requests = 0
        self._served: _Served | None = None
        self._looking = asyncio.Lock()
        self._version = "vllm"

    def version(self, _: str) -> str:
        """Return vLLM's version, as it said it last."""
        return self._version

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """Yield the answer as vLLM makes it."""
        base = self._checked(generation.base_digest)
        wire.check(generation)
        tokenizer = self._tokenizer(base)
        salt = self._salt(generation.tenant, generation.adapter)
        needed = len(generation.prompt_ids) + generation.max_tokens
        answer = wire.AnswerStream(tokenizer, generation)

        def body(model: str) -> dict[str, Any]:
            return wire.completion(generation, model, tokenizer.eos_ids, salt)

        async with (
            self._asked(base, generation.adapter, needed, body) as response,
            aclosing(events(response)) as told,
        ):
            async for event in told:
                delta = answer.read(event)
                if delta is not None:
                    yield delta
                    if delta.finish_reason is not None:
                        return
            raise broken_off()

    async def score(
        self, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter | None
    ) -> list[list[float]]:
        """Return the served model's log-probabilities."""
        found = await self._likelihoods(token_ids, base_digest, adapter, 0, "")
        return [
            [told[token] for token, told in zip(ids[1:], one, strict=True)]
            for ids, one in zip(token_ids, found, strict=True)
        ]

    async def likelihoods(
        self,
        token_ids: Sequence[int],
        base_digest: str,
        adapter: Adapter | None,
        top: int,
        *,
        tenant: str,
    ) -> list[TokenLogprob]:
        """Return how likely the served model finds each token but the first."""
        (found,) = await self._likelihoods([token_ids], base_digest, adapter, top, tenant)
        tokenizer = self._tokenizer(self._base())
        return [
            wire.token_logprob(tokenizer, token, told, top)
            for token, told in zip(token_ids[1:], found, strict=True)
        ]

    async def load(self, adapter: Adapter, base_digest: str) -> None:
        """Have vLLM load the adapter."""
        await self._known(self._checked(base_digest))
        async with self._adapters.using(adapter):
            await self._adapters.load(adapter, again=True)  # whatever vLLM has forgotten since

    async def unload(self, adapter: Adapter, base_digest: str) -> None:
        """Have vLLM let go of the adapter once its requests have ended."""
        self._checked(base_digest)
        await self._adapters.unload(adapter)

    async def health(self) -> EngineHealth:
        """Return vLLM's state; raise Unavailable where it does not answer, or serves another."""
        base = self._base()
        self._served = None
        try:
            await self._connection.ask("GET", "/health")
            served = await self._known(base)
            metrics = (await self._connection.ask("GET", "/metrics")).decode()
        except Overloaded as error:  # what a server says whose engine is broken
            raise Unavailable(error.message, code="engine_unavailable") from error
        rows = {"running": 0, "waiting": 0}
        for kind, value in _METRIC.findall(metrics):
            rows[kind] += int(float(value))
        return EngineHealth(
            base_digest=base.digest,
            adapters_resident=served.adapters,
            rows_active=rows["running"],
            rows_waiting=rows["waiting"],
            adapter_loads=self._adapters.loads,
            adapter_evictions=self._adapters.evictions,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def _likelihoods(
        self,
        token_ids: Sequence[Sequence[int]],
        base_digest: str,
        adapter: Adapter | None,
        top: int,
        tenant: str,
    ) -> list[list[dict[int, float]]]:
        base = self._checked(base_digest)
        for ids in token_ids:
            wire.check(Generation(ids, base_digest, adapter, 1, top_logprobs=top))
            if len(ids) < 2:
                raise TuneryError(
                    f"The engine refused: got a text of {len(ids)} tokens; needed 2 or more.",
                    code="engine_error",
                )
        salt = self._salt(tenant, adapter)
        needed = max(map(len, token_ids)) + 1

        def body(model: str) -> dict[str, Any]:
            return wire.scoring(token_ids, model, salt, top)

        async with self._asked(base, adapter, needed, body) as response:
            return wire.likelihoods(orjson.loads(await read(response)), token_ids)

    @asynccontextmanager
    async def _asked(
        self,
        base: BaseModel,
        adapter: Adapter | None,
        needed_tokens: int,
        body: Callable[[str], dict[str, Any]],
    ) -> AsyncGenerator[httpx2.Response, None]:
        """Give the response to a completion, not yet read; leaving the block cancels it."""
        if self._requests >= self._most_requests:
            raise Overloaded(
                f"vLLM is asked for {self._requests} answers already; try again, or have the"
                " operator raise TUNERY_VLLM__REQUESTS."
            )
        self._requests += 1
        try:
            served = await self._known(base)
            if needed_tokens > served.context_tokens:
                raise TuneryError(
                    f"The engine refused: got {needed_tokens} tokens, prompt and answer together;"
                    f" this vLLM takes {served.context_tokens} tokens.",
                    code="engine_error",
                )
            async with AsyncExitStack() as held:
                name = self._name(base)
                if adapter is not None:
                    name = await held.enter_async_context(self._adapters.using(adapter))
                response = await self._completion(base, adapter, body(name))
                held.push_async_callback(response.aclose)
                yield response
        except (httpx2.TransportError, Unavailable):
            self._served = None  # what answers next may be another server
            raise
        finally:
            self._requests -= 1

    async def _completion(
        self, base: BaseModel, adapter: Adapter | None, body: dict[str, Any]
    ) -> httpx2.Response:
        """Ask; where vLLM has lost the adapter, have it loaded and ask again."""
        for _ in range(3):  # another process may unload it in between, once
            response = await self._connection.send("POST", "/v1/completions", body)
            if response.is_success:
                return response
            try:
                if response.status_code != 404:
                    raise await refusal(response)
            finally:
                await response.aclose()
            self._served = None
            await self._known(base)
            if adapter is None:
                continue
            await self._adapters.load(adapter, again=True)
        raise Overloaded("vLLM has no room for this model now; try again.")

    async def _known(self, base: BaseModel) -> _Served:
        """Return what the server is; raise Unavailable where it is too old, or has another base."""
        async with self._looking:
            if self._served is None:
                self._served = await self._look(self._name(base))
                self._version = f"vllm-{self._served.version}"
            return self._served

    async def _look(self, name: str) -> _Served:
        try:
            version = str(orjson.loads(await self._connection.ask("GET", "/version"))["version"])
            models = orjson.loads(await self._connection.ask("GET", "/v1/models"))["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(
                "What answers at vLLM's address is no vLLM; look at TUNERY_VLLM__URL.",
                code="engine_unavailable",
            ) from error
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < _OLDEST:
            raise Unavailable(
                f"Got vLLM {version[:40]!r}; needed {'.'.join(map(str, _OLDEST))} or newer.",
                code="engine_unavailable",
            )
        served = next((one for one in models if one["id"] == name and not one.get("parent")), None)
        if served is None:
            bases = ", ".join(str(one["id"]) for one in models if not one.get("parent"))
            raise Unavailable(
                f"This vLLM serves {bases[:200]}, not {name}; start it with --served-model-name"
                f" {name}, or name its own in TUNERY_VLLM__MODEL.",
                code="engine_unavailable",
            )
        adapters = sum(1 for one in models if one.get("parent"))
        return _Served(version, int(served["max_model_len"]), adapters)

    def _name(self, base: BaseModel) -> str:
        return self._model or served_name(base)

    def _checked(self, base_digest: str) -> BaseModel:
        base = self._base()
        if base.digest != base_digest:
            raise TuneryError(
                f"The engine refused: it serves base {base.digest[:12]}, not {base_digest[:12]}.",
                code="engine_error",
            )
        return base

    def _salt(self, tenant: str, adapter: Adapter | None) -> str:
        """Return what keeps tenants and adapters apart in vLLM's cache, and no one can guess.

        64 hexadecimal digits: no adapter has such a name, so none can stand for a salt.
        """
        name = "" if adapter is None else file_name(adapter)
        text = orjson.dumps(["vllm cache salt", tenant, name])
        return hmac.new(self._salt_key, text, hashlib.sha256).hexdigest()
