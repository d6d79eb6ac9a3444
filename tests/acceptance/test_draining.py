"""What ends in order lets go of nothing it has begun; what is killed says so."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from support.server import BASE, CONTEXT, Server, ask, poll
from support.tiny import make_byte_tokenizer

END = str(make_byte_tokenizer().token_to_id("<|im_end|>"))
LONG = CONTEXT - 100
STREAMS = 4


def request(tokens: int, **others: Any) -> dict[str, Any]:
    """Return a request whose answer has exactly `tokens` tokens."""
    messages = [{"role": "user", "content": "ask 001"}]
    body = {"model": BASE, "messages": messages, "max_tokens": tokens, "temperature": 0}
    return {**body, "logit_bias": {END: -100}, **others}


class Streams:
    """Some streams at once, read to their ends on threads of their own."""

    def __init__(self, url: str, key: str, count: int = STREAMS) -> None:
        self._pool = ThreadPoolExecutor(count)
        self._begun = threading.Barrier(count + 1, timeout=60)
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx2.Client(base_url=url, headers=headers, timeout=120, trust_env=False)
        self._reading = [self._pool.submit(self._read) for _ in range(count)]
        self._begun.wait()

    def _read(self) -> list[str]:
        lines: list[str] = []
        body = request(LONG, stream=True)
        with self._client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if line:
                    lines.append(line)
                if len(lines) == 3:
                    lines.append("")  # begun, once
                    self._begun.wait()
        return [line for line in lines if line]

    def ends(self) -> list[list[str]]:
        """Return each stream's lines."""
        found = [one.result(timeout=120) for one in self._reading]
        self._pool.shutdown()
        self._client.close()
        return found


def assert_complete(streams: list[list[str]]) -> None:
    for lines in streams:
        assert lines[-1] == "data: [DONE]"
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        assert not any("error" in chunk for chunk in chunks)
        reasons = [one["finish_reason"] for chunk in chunks for one in chunk["choices"]]
        assert [reason for reason in reasons if reason] == ["length"]


def test_a_service_told_to_stop_ends_its_streams_and_refuses_what_comes_then(
    models: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, models) as server:
        url, key = server.url, server.env["OPENAI_API_KEY"]
        assert server.process is not None
        streams = Streams(url, key)
        server.process.send_signal(signal.SIGTERM)

        def refused() -> httpx2.Response | None:
            with suppress(httpx2.TransportError):
                answer = httpx2.get(f"{url}/v1/models", trust_env=False)
                return answer if answer.status_code == 503 else None
            return None

        answer = poll(refused, "the refusal of a new request")
        assert answer.json()["error"]["code"] == "service_unavailable"
        assert int(answer.headers["retry-after"]) > 0
        server.child("serve").send(signal.SIGTERM)  # as systemd does, beside the supervisor's own
        assert_complete(streams.ends())
        assert server.process.wait(60) == 0
    rows = server.sql("SELECT output_tokens FROM usage")
    assert rows == [(LONG,)] * STREAMS


def test_what_does_not_end_within_the_time_is_broken_off_visibly(
    models: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, models, TUNERY_DRAIN_S="0") as server:
        streams = server.client().chat.completions.create(**request(LONG, stream=True))
        next(streams)
        api = server.child("serve")
        api.send(signal.SIGTERM)
        with pytest.raises((openai.APIError, httpx2.TransportError)):
            list(streams)
        poll(lambda: not api.lives, "the end of the API")
        server.wait_until_ready()
        ((made,),) = server.sql("SELECT output_tokens FROM usage")
        assert 0 < made < LONG


def test_engine_and_api_by_hand_serve_a_base_and_the_engine_drains(
    models: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, models) as server:
        key = server.env["OPENAI_API_KEY"]
    env = {**server.settings, "TUNERY_BASE": "tiny", "TUNERY_DATA": str(server.data)}
    command = [sys.executable, "-m", "tunery"]
    port = str(_free_port())
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "alone.log").open("wb") as log:
        start = [[*command, "engine", "--model", "tiny"], [*command, "serve", "--port", port]]
        engine, api = (subprocess.Popen(one, env=env, stdout=log, stderr=log) for one in start)
    try:
        poll(lambda: _status(f"{url}/readyz") == 200, "the API and the engine")
        streams = Streams(url, key)
        engine.send_signal(signal.SIGTERM)
        asked: Callable[[], bool] = lambda: _ask(url, key).status_code == 503  # noqa: E731
        poll(asked, "a refusal")
        assert_complete(streams.ends())
        assert engine.wait(60) in (0, -signal.SIGTERM)
        answer = _ask(url, key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert int(answer.headers["retry-after"]) > 0
    finally:
        for process in (engine, api):
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
            process.wait(60)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _status(url: str) -> int:
    with suppress(httpx2.TransportError):
        return httpx2.get(url, trust_env=False).status_code
    return 0


def _ask(url: str, key: str) -> httpx2.Response:
    headers = {"authorization": f"Bearer {key}"}
    to = f"{url}/v1/chat/completions"
    return httpx2.post(to, json=request(1), headers=headers, timeout=60, trust_env=False)


def test_a_killed_engine_is_an_error_to_streams_and_to_whole_answers(
    models: Path, tmp_path: Path
) -> None:
    with Server(tmp_path, models) as server:
        client, engine = server.client(), server.child("engine")
        streams = [client.chat.completions.create(**request(LONG, stream=True)) for _ in range(2)]
        for stream in streams:
            next(stream)
        with ThreadPoolExecutor(1) as pool:
            whole = pool.submit(lambda: client.chat.completions.create(**request(LONG)))
            poll(lambda: server.engine_rows() == 3, "three answers in the making")
            engine.send(signal.SIGKILL)
            for stream in streams:
                with pytest.raises(openai.APIError) as told:
                    list(stream)
                assert told.value.code == "engine_error"
            with pytest.raises(openai.InternalServerError) as failed:
                whole.result(60)
            assert failed.value.code == "engine_error"
        assert len(ask(client, BASE, max_tokens=4)) > 0
        assert server.child("engine").pid != engine.pid
        # What the streams were given is charged; the whole answer was not served, and is not.
        made = [tokens for (tokens,) in server.sql("SELECT output_tokens FROM usage")]
        assert len(made) == 3
        assert all(0 < tokens < LONG for tokens in made)


@pytest.mark.parametrize("stream", [True, False], ids=["streams", "whole answers"])
def test_twenty_clients_that_leave_free_their_rows_and_are_charged_what_was_made(
    server: Server, stream: bool
) -> None:
    poll(lambda: server.engine_rows() == 0, "an idle engine")
    before = len(server.sql("SELECT 1 FROM usage"))
    headers = {"authorization": f"Bearer {server.env['OPENAI_API_KEY']}"}
    body = json.dumps(request(LONG, stream=stream)).encode()
    leaving = [_Raw(server.url, headers, body) for _ in range(20)]
    poll(lambda: server.engine_rows() == 20, "twenty answers, made or waiting")
    for one in leaving:
        one.leave()
    poll(lambda: server.engine_rows() == 0, "every row free again", 10)
    ledger = "SELECT output_tokens FROM usage ORDER BY rowid"
    poll(lambda: len(server.sql(ledger)) == before + 20, "twenty lines in the ledger")
    # None came to its end; a whole answer whose row only waited made nothing.
    assert all(0 <= tokens < LONG for (tokens,) in server.sql(ledger)[before:])


class _Raw:
    """A request on a socket of its own, that can be left at any moment."""

    def __init__(self, url: str, headers: dict[str, str], body: bytes) -> None:
        import socket

        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._socket.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n{head}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def leave(self) -> None:
        self._socket.close()
