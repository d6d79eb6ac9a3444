"""Reads OpenAI's lists over real HTTP: pages, retries, refusals, and where the key goes."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tunery.domain.errors import NotFound, TuneryError, Unavailable
from tunery.domain.imports import BrokenOff, SourceRefused, SourceUsage
from tunery.outgoing.asking import Asker
from tunery.outgoing.openai import OpenAISource
from tunery.outgoing.retrying import TRIES, wait_s

KEY, ADMIN = "sk-test-0123456789", "sk-admin-0123456789"


@dataclass(slots=True)
class Reply:
    """An answer: JSON unless it is bytes. `missing` bytes of what is announced never come."""

    value: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    missing: int = 0


@dataclass(slots=True)
class Service:
    """A service that gives its replies one after the other; the last one stays."""

    replies: list[Reply]
    url: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def next(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def service(*replies: Reply) -> Iterator[Service]:
    running = Service(list(replies))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def handle_one(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            running.asked.append((self.command, self.path, self.headers["authorization"]))
            reply = running.next()
            data = reply.value
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data) + reply.missing))
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = reply.missing > 0

        do_GET = do_POST = handle_one  # noqa: N815 - http.server's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def reading(*replies: Reply) -> Iterator[tuple[OpenAISource, Service, list[float]]]:
    waits: list[float] = []
    with service(*replies) as running:
        source = OpenAISource(f"{running.url}/", KEY, ADMIN, sleep=waits.append)
        try:
            yield source, running, waits
        finally:
            source.close()


def page(*ids: str, **more: Any) -> Reply:
    data = [{"id": one, "object": "file", "purpose": "fine-tune"} for one in ids]
    return Reply({"object": "list", "data": data, **more})


def test_a_list_is_read_page_by_page_after_the_last_id() -> None:
    pages = page("file-3", "file-2", has_more=True), page("file-1", has_more=False)
    with reading(*pages) as (source, running, _):
        assert [file.id for file in source.files()] == ["file-1", "file-2", "file-3"]
    assert [path for _, path, _ in running.asked] == [
        "/v1/files?limit=1000",
        "/v1/files?limit=1000&after=file-2",
    ]


@pytest.mark.parametrize(
    "pages",
    [
        # No has_more: until a page is empty.
        (page("file-2"), page("file-1"), page()),
        # No has_more, and the service knows no `after`: until a page brings nothing new.
        (page("file-2", "file-1"),),
        # An object came in between, and the pages overlap.
        (page("file-2", has_more=True), page("file-2", "file-1", has_more=False)),
    ],
)
def test_a_list_ends_and_has_each_object_once_however_it_is_cut(pages: tuple[Reply, ...]) -> None:
    with reading(*pages) as (source, _, _):
        assert [file.id for file in source.files()] == ["file-1", "file-2"]


def test_what_may_pass_is_asked_again_after_what_the_service_says() -> None:
    replies = (
        Reply({}, 429, {"retry-after": "7"}),
        Reply({}, 429, {"retry-after-ms": "1500", "retry-after": "2"}),
        Reply({}, 503),
        Reply({}, 500, {"retry-after": "4000"}),
        page("file-1", has_more=False),
    )
    with reading(*replies) as (source, running, waits):
        assert len(source.files()) == 1
    assert waits == [7.0, 1.5, 2.0, 120.0]  # what is asked for, 0.5 * 2**2, and at most two minutes
    assert len(running.asked) == 5


def test_a_date_to_wait_until_is_understood() -> None:
    import datetime

    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    assert 55 < wait_s(0, {"retry-after": format_datetime(date, usegmt=True)}) <= 60
    assert wait_s(0, {"retry-after": "soon"}) == 0.5
    assert [wait_s(n, None) for n in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize("broken", [Reply(b'{"data": [', missing=5), Reply(b"<html>"), Reply([])])
def test_an_answer_that_is_broken_is_asked_for_again(broken: Reply) -> None:
    with reading(broken, page("file-1", has_more=False)) as (source, _, waits):
        assert len(source.files()) == 1
        assert waits == [0.5]


def test_after_many_tries_it_says_that_it_may_be_run_again() -> None:
    with reading(Reply({"error": {"message": "busy"}}, 503)) as (source, running, _):
        with pytest.raises(Unavailable, match=r"503: busy\. Run this again later"):
            source.models()
        assert len(running.asked) == TRIES


def test_a_refused_key_is_told_once_and_not_shown() -> None:
    refusal = Reply({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)
    with reading(refusal) as (source, running, _):
        with pytest.raises(SourceRefused, match="refused the key") as refused:
            source.models()
        assert len(running.asked) == 1
    assert KEY not in refused.value.message
    assert running.asked == [("GET", "/v1/models", f"Bearer {KEY}")]


def test_what_a_service_says_moves_no_cursor_and_is_one_line() -> None:
    said = {"error": {"message": "a\x1b[2Jb\n  c"}}
    with reading(Reply(said, 400)) as (source, _, _), pytest.raises(SourceRefused) as refused:
        source.models()
    assert refused.value.message.endswith("answered 400: a?[2Jb c")


def test_an_id_that_could_lead_elsewhere_is_no_file() -> None:
    with reading(page("file-1", "../secret", has_more=False)) as (source, _, _):
        assert [file.id for file in source.files()] == ["file-1"]


def test_the_key_does_not_go_where_a_redirection_leads() -> None:
    with service(Reply({"data": []})) as elsewhere:
        to = Reply({}, 302, {"location": f"{elsewhere.url}/models"})
        with reading(to) as (source, _, _):
            assert source.models() == []
        assert [key for _, _, key in elsewhere.asked] == [None]


def test_a_body_that_ends_early_is_broken_off() -> None:
    with (
        reading(Reply(b"abc", missing=2)) as (source, _, _),
        source.content("file-1") as chunks,
        pytest.raises(BrokenOff),
    ):
        list(chunks)


def test_what_is_gone_is_not_found() -> None:
    with reading(Reply({}, 404)) as (source, _, _):
        assert source.file("file-1") is None
        with pytest.raises(NotFound), source.content("file-1"):
            pass


def test_usage_is_seen_with_the_admin_key_or_not_at_all() -> None:
    first = {"results": [{"model": "a", "num_model_requests": 1, "input_tokens": 5}]}
    second = {"results": [{"model": "b", "num_model_requests": 9}, {"model": "a"}]}
    pages = (
        Reply({"data": [first], "has_more": True, "next_page": "p2"}),
        Reply({"data": [second], "has_more": False, "next_page": None}),
    )
    with reading(*pages) as (source, running, _):
        found = source.usage(1_700_000_000)
    assert found == [SourceUsage("b", 9, 0, 0), SourceUsage("a", 1, 5, 0)]
    assert {key for _, _, key in running.asked} == {f"Bearer {ADMIN}"}
    assert "start_time=1700000000" in running.asked[0][1]
    assert "page=p2" in running.asked[1][1]
    with reading(Reply({}, 403)) as (source, _, _):
        assert source.usage(0) is None


# ---- asking


def completion(text: str) -> Reply:
    return Reply({"choices": [{"message": {"role": "assistant", "content": text}}]})


@contextmanager
def asking(*replies: Reply) -> Iterator[tuple[Callable[[Any], str], Service]]:
    with service(*replies) as running:
        asker = Asker(running.url, KEY, "ft:x", sleep=lambda _: None)
        try:
            yield asker.ask, running
        finally:
            asker.close()


def test_an_answer_is_asked_for_until_it_comes() -> None:
    with asking(Reply({}, 429), Reply({}, 503), completion("Ho")) as (ask, running):
        assert ask({"messages": []}) == "Ho"
    assert {(verb, path) for verb, path, _ in running.asked} == {("POST", "/v1/chat/completions")}


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (
            Reply({"error": {"message": f"no such model, {KEY}"}}, 404),
            r"404: no such model, \*\*\*",
        ),
        (Reply({"choices": []}), "no chat completion"),
        (Reply(b"<html>"), "no chat completion"),
    ],
)
def test_who_does_not_answer_is_told_of(reply: Reply, told: str) -> None:
    with asking(reply) as (ask, running):
        with pytest.raises(TuneryError, match=told):
            ask({"messages": []})
        assert len(running.asked) == 1
