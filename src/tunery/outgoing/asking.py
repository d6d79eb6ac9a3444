"""Puts chat requests to a model behind a key, wherever it is served, and returns the answers."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import orjson

from tunery.datasets.likeness import answer_text
from tunery.domain.errors import TuneryError, Unavailable
from tunery.outgoing.retrying import TRIES, may_pass, told, wait_s

_TIMEOUT = httpx2.Timeout(600.0, connect=15.0)  # an answer may be long in the making


class Asker:
    """One model at one address. Thread-safe."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._key = api_key
        self._model = model
        self._sleep = sleep
        self._client = httpx2.Client(timeout=_TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, body: Mapping[str, Any]) -> str:
        """Return the answer to a body; raise TuneryError where the model refuses it."""
        content = orjson.dumps({**body, "model": self._model})
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        why = ""
        for attempt in range(TRIES):
            asked: Mapping[str, str] | None = None
            try:
                response = self._client.post(self._url, content=content, headers=headers)
            except httpx2.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    return self._answer(response)
                message = told(response.content).replace(self._key, "***")
                why, asked = f"{response.status_code}: {message}", response.headers
                if not may_pass(response.status_code):
                    raise TuneryError(f"{self._model}: {why}")
            if attempt + 1 < TRIES:
                self._sleep(wait_s(attempt, asked))
        raise Unavailable(f"{self._model} did not answer in {TRIES} tries; the last one: {why}")

    def _answer(self, response: httpx2.Response) -> str:
        try:
            return answer_text(orjson.loads(response.content)["choices"][0]["message"])
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
            raise TuneryError(f"{self._model} answered with no chat completion.") from None
