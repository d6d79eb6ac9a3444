"""The embedded engine, over HTTP: sends adapters along when the engine does not have them."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tunery import __version__
from tunery.domain.errors import InvalidRequest, NotFound, Overloaded, Unavailable
from tunery.domain.jobs import Adapter
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.engine import (
    INVALID_GRAMMAR,
    Delta,
    EngineHealth,
    Generation,
    TokenLogprob,
)
from tunery.inference.connection import LOST, EngineConnection, cut_off
from tunery.inference.lines import lines
from tunery.inference.places import Arithmetic, arithmetic_of

VERSION = f"tunery-{__version__}"
_HEALTH_S = 3.0  # an engine that is frozen, or is not heard for its load, answers no look
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Sent only where they differ from the default.
_OPTIONS = ("presence_penalty", "frequency_penalty", "logit_bias", "top_logprobs", "grammar")
_DEFAULTS = {field.name: field.default for field in fields(Generation)}


class EmbeddedEngine:
    """An Engine of one base, whose process runs on this machine."""

    def __init__(self, address_file: Path, blobs: BlobStore, start_s: float = 0.0) -> None:
        """A request waits up to `start_s` seconds for the process to be started."""
        self._connection = EngineConnection(address_file, start_s)
        self._arithmetic = Arithmetic(arithmetic_of(address_file))
        self._blobs = blobs
        # What was loaded is used before the next one is: else cold ones push each other out.
        self._loading = asyncio.Lock()

    def version(self, _: str) -> str:
        """Return our own version, which the engine's process has too, and its arithmetic.

        That of an engine which is not up is the one it had last; one that never was has none.
        """
        arithmetic = self._arithmetic()
        return f"{VERSION}-{arithmetic}" if arithmetic else VERSION

    async def generate(self, generation: Generation) -> AsyncGenerator[Delta, None]:
        """Yield the answer as the engine makes it."""
        body: dict[str, Any] = {
            "prompt_ids": list(generation.prompt_ids),
            "base_digest": generation.base_digest,
            "adapter": generation.adapter and adapter_name(generation.adapter),
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "stop": list(generation.stop),
            "seed": generation.seed,
            "tenant": generation.tenant,
        }
        for name in _OPTIONS:
            if (value := getattr(generation, name)) != _DEFAULTS[name]:
                body[name] = value
        response = await self._ask("/generate", body, generation.adapter)
        ended = False
        try:
            async for line in lines(response.content.iter_any()):
                value = orjson.loads(line)
                if "error" in value:
                    if value.get("code") == INVALID_GRAMMAR:
                        raise InvalidRequest(value["error"], code=INVALID_GRAMMAR)
                    if value.get("code") == Overloaded.CODE:
                        raise Overloaded(value["error"])
                    raise Unavailable(value["error"], code="engine_error")
                delta = _delta(value)
                ended = delta.finish_reason is not None
                yield delta
            # Read to its end, not to the last piece: the connection serves the next request.
            if not ended:
                raise cut_off()
        except LOST as error:
            raise cut_off() from error
        finally:
            response.close()

    async def score(
        self, token_ids: Sequence[Sequence[int]], base_digest: str, adapter: Adapter | None
    ) -> list[list[float]]:
        """Return the served model's log-probabilities."""
        body = {
            "token_ids": [list(ids) for ids in token_ids],
            "base_digest": base_digest,
            "adapter": adapter and adapter_name(adapter),
        }
        response = await self._ask("/score", body, adapter)
        scores: list[list[float]] = orjson.loads(await self._connection.read(response))
        return scores

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
        body = {
            "token_ids": list(token_ids),
            "base_digest": base_digest,
            "adapter": adapter and adapter_name(adapter),
            "top": top,
            "tenant": tenant,
        }
        response = await self._ask("/likelihoods", body, adapter)
        return list(map(_token_logprob, orjson.loads(await self._connection.read(response))))

    async def load(self, adapter: Adapter, base_digest: str) -> None:
        """Send the adapter's files; the engine holds them against its base's shapes."""
        del base_digest  # this engine has one base
        weights, config = await asyncio.to_thread(self._files, adapter)
        response = await self._connection.send(
            "PUT",
            "/adapters",
            params={"name": adapter_name(adapter)},
            headers={"x-adapter-config": json.dumps(orjson.loads(config))},  # ASCII, as headers are
            content=weights,
        )
        await self._connection.checked(response)
        response.close()

    async def unload(self, adapter: Adapter, base_digest: str) -> None:
        """Have the engine let go of the adapter."""
        del base_digest
        response = await self._connection.send(
            "DELETE", "/adapters", params={"name": adapter_name(adapter)}
        )
        await self._connection.checked(response)
        response.close()

    async def health(self) -> EngineHealth:
        """Return the engine's state."""
        try:
            async with asyncio.timeout(_HEALTH_S):
                response = await self._connection.send("GET", "/health", wakes=False)
                await self._connection.checked(response)
                value = orjson.loads(await self._connection.read(response))
        except TimeoutError:
            raise Unavailable(
                f"The engine has not answered within {_HEALTH_S:.0f} s.", code="engine_unavailable"
            ) from None
        return EngineHealth(**value)

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def _ask(
        self, path: str, body: dict[str, Any], adapter: Adapter | None
    ) -> aiohttp.ClientResponse:
        """Send a request; if the engine lacks its adapter, send that and ask again."""
        content = orjson.dumps(body)
        response = await self._post(path, content)
        if response.status == 404 and adapter is not None:
            response.close()
            async with self._loading:
                response = await self._after_loading(path, content, adapter, body["base_digest"])
        await self._connection.checked(response)
        return response

    async def _after_loading(
        self, path: str, content: bytes, adapter: Adapter, base_digest: str
    ) -> aiohttp.ClientResponse:
        for _ in range(3):  # another process's request may push an adapter out before it is used
            response = await self._post(path, content)
            if response.status != 404:
                return response
            response.close()
            await self.load(adapter, base_digest)
        raise Overloaded("The engine has no room for this model now; try again.")

    async def _post(self, path: str, content: bytes) -> aiohttp.ClientResponse:
        headers = {"content-type": "application/json"}
        return await self._connection.send("POST", path, content=content, headers=headers)

    def _files(self, adapter: Adapter) -> tuple[bytes, bytes]:
        try:
            return (
                self._blobs.read(f"{adapter.key}/{_WEIGHTS}"),
                self._blobs.read(f"{adapter.key}/{_CONFIG}"),
            )
        except NotFound as error:
            raise Unavailable(
                "The model's files are missing from the store.", code="model_files_missing"
            ) from error


def _delta(value: dict[str, Any]) -> Delta:
    logprobs = value.pop("logprobs", ())
    return Delta(**value, logprobs=tuple(map(_token_logprob, logprobs)))


def _token_logprob(value: dict[str, Any]) -> TokenLogprob:
    return TokenLogprob(
        token=value["token"],
        token_bytes=bytes.fromhex(value["token_bytes"]),
        logprob=value["logprob"],
        top=tuple((token, bytes.fromhex(data), logprob) for token, data, logprob in value["top"]),
    )


def adapter_name(adapter: Adapter) -> str:
    """Return the name that the engine knows the adapter by: it never comes to mean another."""
    return f"{adapter.key}@{adapter.digest}"
