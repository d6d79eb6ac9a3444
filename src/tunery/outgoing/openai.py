"""Reads what an organization has at OpenAI, or at any service that speaks its API: GET alone.

A request that fails for a while is tried again, as OpenAI's own client does: after what the service
asks for, else after 0.5 s and twice as long each time. The key goes into a header and nowhere else.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import orjson

from tunery.domain.errors import NotFound, Unavailable
from tunery.domain.imports import (
    BrokenOff,
    SourceFile,
    SourceJob,
    SourceModel,
    SourceRefused,
    SourceUsage,
)
from tunery.domain.jobs import Checkpoint, LogEntry
from tunery.outgoing import openai_objects as objects
from tunery.outgoing.retrying import TRIES, may_pass, told, wait_s

OPENAI = "https://api.openai.com/v1"
_TIMEOUT = httpx2.Timeout(60.0, connect=15.0)
_PAGE = 100
_FILES_PAGE = 1000
_USAGE_DAYS = 31  # the most of a page
_REFUSALS = (401, 403)


class OpenAISource:
    """A Source behind an API key; usage is seen with an admin key alone."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        admin_key: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self.key = api_key
        self._admin_key = admin_key
        self._sleep = sleep
        self._client = httpx2.Client(timeout=_TIMEOUT, follow_redirects=True)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def address(self) -> str:
        """Return the base URL."""
        return self._base_url

    # ---- what there is

    def models(self) -> Sequence[SourceModel]:
        """Return the tuned models."""
        listed = self._object("models").get("data") or ()
        return [model for one in listed if (model := objects.model_of(one)) is not None]

    def jobs(self) -> Sequence[SourceJob]:
        """Return every job, oldest first."""
        newest_first = self._pages("fine_tuning/jobs", _PAGE)
        return [objects.job_of(one, self.address) for one in newest_first][::-1]

    def events(self, job_id: str) -> Sequence[LogEntry]:
        """Return a job's story, oldest line first."""
        newest_first = self._pages(f"fine_tuning/jobs/{job_id}/events", _PAGE)
        return [objects.event_of(one, job_id) for one in newest_first][::-1]

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        """Return a job's published checkpoints, oldest first."""
        newest_first = self._pages(f"fine_tuning/jobs/{job_id}/checkpoints", _PAGE)
        found = [objects.checkpoint_of(one, job_id) for one in newest_first]
        return [one for one in found if one is not None][::-1]

    def files(self) -> Sequence[SourceFile]:
        """Return every file, oldest first; one whose id can be none is no file."""
        newest_first = self._pages("files", _FILES_PAGE)
        return [objects.file_of(one) for one in newest_first if objects.valid_id(one.get("id"))][
            ::-1
        ]

    def file(self, file_id: str) -> SourceFile | None:
        """Return a file, if it is still there."""
        try:
            return objects.file_of(self._object(f"files/{file_id}"))
        except NotFound:
            return None

    @contextlib.contextmanager
    def content(self, file_id: str) -> Iterator[Iterator[bytes]]:
        """Open a file's bytes."""
        response = self._open(f"files/{file_id}/content", {})
        try:
            yield _chunks(response)
        finally:
            response.close()

    def usage(self, since: int) -> Sequence[SourceUsage] | None:
        """Return what was asked of each model since then; None where the keys do not open that."""
        buckets: list[Mapping[str, Any]] = []
        query: dict[str, Any] = {
            "start_time": since,
            "bucket_width": "1d",
            "limit": _USAGE_DAYS,
            "group_by[]": "model",
        }
        try:
            while True:
                page = self._object("organization/usage/completions", query, admin=True)
                buckets += page.get("data") or ()
                following = page.get("next_page")
                if not page.get("has_more") or not following or following == query.get("page"):
                    return objects.usage_of(buckets)
                query["page"] = following
        except (SourceRefused, NotFound):
            return None

    # ---- stored completions, for replays

    def completions(self, model: str | None) -> Iterator[Mapping[str, Any]]:
        """Yield the stored chat completions, of one model or of all, newest first."""
        query = {} if model is None else {"model": model}
        yield from self._pages("chat/completions", _PAGE, query)

    def messages(self, completion_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the messages that a stored completion answers, in their order."""
        path = f"chat/completions/{completion_id}/messages"
        return list(self._pages(path, _PAGE, {"order": "asc"}))

    # ---- requests

    def _pages(
        self, path: str, limit: int, query: Mapping[str, Any] | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """Yield a list's items, each once, however the service cuts it into pages.

        It ends as OpenAI's client does: at an empty page, or where `has_more` is false. Where that
        is missing, and a page brings nothing new, there is no more either.
        """
        seen: set[str] = set()
        after: str | None = None
        while True:
            asked = {**(query or {}), "limit": limit} | ({} if after is None else {"after": after})
            page = self._object(path, asked)
            fresh = [one for one in page.get("data") or () if one.get("id") not in seen]
            yield from fresh
            named = [one["id"] for one in fresh if isinstance(one.get("id"), str)]
            seen.update(named)
            if not named or page.get("has_more") is False:
                return
            after = named[-1]

    def _object(
        self, path: str, query: Mapping[str, Any] | None = None, *, admin: bool = False
    ) -> Mapping[str, Any]:
        """Return an object; a body that breaks off, or is no JSON, is asked for again."""
        why = ""
        for attempt in range(TRIES):
            response = self._open(path, query or {}, admin=admin)
            try:
                value = orjson.loads(b"".join(_chunks(response)))
                if isinstance(value, dict):
                    return value
                why = "no JSON object"
            except BrokenOff as error:
                why = error.message
            except orjson.JSONDecodeError:
                why = "no JSON"
            finally:
                response.close()
            self._sleep(wait_s(attempt, None))
        raise Unavailable(f"{self._url(path)} answered {TRIES} times, the last time with {why}.")

    def _open(self, path: str, query: Mapping[str, Any], *, admin: bool = False) -> httpx2.Response:
        """Return an answer that is well, its body unread; try again what may pass."""
        key = (self._admin_key or self.key) if admin else self.key
        headers = {"authorization": f"Bearer {key}", "user-agent": "tunery"}
        why = ""
        for attempt in range(TRIES):
            asked: Mapping[str, str] | None = None
            try:
                request = self._client.build_request(
                    "GET", self._url(path), params=query, headers=headers
                )
                response = self._client.send(request, stream=True)
            except httpx2.TransportError as error:
                why = f"{type(error).__name__}: {error}"
            except httpx2.HTTPError as error:  # too many redirections, say
                raise SourceRefused(f"{self._url(path)}: {error}") from None
            else:
                status = response.status_code
                if status == 200:
                    return response
                message = _message(response).replace(key, "***")
                if status in _REFUSALS:
                    raise SourceRefused(f"{self._url(path)} refused the key ({status}): {message}")
                if status == 404:
                    raise NotFound(f"{self._url(path)} is not there: {message}")
                if not may_pass(status):
                    raise SourceRefused(f"{self._url(path)} answered {status}: {message}")
                why, asked = f"{status}: {message}", response.headers
            if attempt + 1 < TRIES:
                self._sleep(wait_s(attempt, asked))
        raise Unavailable(
            f"{self._url(path)} did not answer in {TRIES} tries; the last one: {why}. Run this"
            " again later: it goes on where it stopped."
        )

    def _url(self, path: str) -> str:
        return f"{self._base_url}/{path}"


def _chunks(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes()
    except httpx2.HTTPError as error:
        raise BrokenOff(f"a connection that broke off ({type(error).__name__})") from None


def _message(response: httpx2.Response) -> str:
    """Return what an error says, in one line."""
    try:
        return told(b"".join(_chunks(response)))
    except BrokenOff:
        return told(b"")
    finally:
        response.close()
