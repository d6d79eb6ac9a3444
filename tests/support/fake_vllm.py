"""A server that keeps adapters as vLLM does and answers what a test tells it to.

For what no recording can show: restarts, faults, and who asks for what while others do.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.vllm import MODEL

Answer = tuple[int, Any]  # a status, and JSON or the lines of a stream


def stream(*events: Any) -> list[str]:
    """Return the lines of a stream of these events, without its end."""
    return [f"data: {json.dumps(event)}\n\n" for event in events]


def piece(token: int, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "token_ids": [token], "finish_reason": finish_reason}]}


DONE = "data: [DONE]\n\n"
WHOLE = [*stream(piece(64), piece(65, "length")), DONE]


class FakeVllm:
    """What it knows and was asked; a test changes it as it runs."""

    def __init__(self) -> None:
        self.url = ""
        self.version: Any = {"version": "0.18.0"}
        self.models = [MODEL]
        self.adapters: dict[str, Path] = {}
        self.asked: list[tuple[str, Any]] = []
        self.faults: dict[str, Answer] = {}
        self.lines: list[str] = WHOLE
        self.unlocked = threading.Event()  # completions send their last line once it is set
        self.unlocked.set()
        self.left = threading.Event()  # a client went away before the end
        self.lock = threading.Lock()

    def bodies(self, path: str) -> list[Any]:
        with self.lock:
            return [body for asked, body in self.asked if asked == path]

    def restart(self) -> None:
        with self.lock:
            self.adapters.clear()

    def answer(self, path: str, body: Any) -> Answer:
        with self.lock:
            self.asked.append((path, body))
            if path in self.faults:
                return self.faults[path]
            routes: dict[str, Callable[[Any], Answer]] = {
                "/health": lambda _: (200, ""),
                "/version": lambda _: (200, self.version),
                "/metrics": lambda _: (200, 'vllm:num_requests_running{engine="0"} 3.0\n'),
                "/v1/models": self._list,
                "/v1/load_lora_adapter": self._load,
                "/v1/unload_lora_adapter": self._unload,
                "/v1/completions": self._complete,
            }
            return routes[path](body)

    def _list(self, _: Any) -> Answer:
        bases = [{"id": name, "parent": None, "max_model_len": 512} for name in self.models]
        return 200, {"data": [*bases, *({"id": one, "parent": MODEL} for one in self.adapters)]}

    def _load(self, body: Any) -> Answer:
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters:
            return 400, error(f"The lora adapter '{name}' has already been loaded.", 400)
        if not (path / "adapter_config.json").is_file():
            return 404, error(f"No adapter found for {path}", 404)
        self.adapters[name] = path
        return 200, "Success"

    def _unload(self, body: Any) -> Answer:
        if self.adapters.pop(body["lora_name"], None) is None:
            return 404, error("The lora adapter cannot be found.", 404)
        return 200, "Success"

    def _complete(self, body: Any) -> Answer:
        if body["model"] not in (*self.models, *self.adapters):
            return 404, error("The model does not exist.", 404)
        path = self.adapters.get(body["model"])
        assert path is None or (path / "adapter_model.safetensors").is_file()
        return 200, self.lines


def error(message: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "param": None, "code": code}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeVllm

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, told = self.fake.answer(self.path, json.loads(data) if data else None)
        self.send_response(status)
        if isinstance(told, list):
            self._stream(told)
        else:
            body = told.encode() if isinstance(told, str) else json.dumps(told).encode()
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _stream(self, lines: list[str]) -> None:
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for place, line in enumerate(lines):
                while place == len(lines) - 1 and not self.fake.unlocked.wait(0.02):
                    self.wfile.write(b"3\r\n:\n\n\r\n")  # a comment: finds out who has left
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line.encode()))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.fake.left.set()


@contextmanager
def faked() -> Iterator[FakeVllm]:
    fake = FakeVllm()
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        fake.unlocked.set()
        server.shutdown()
        server.server_close()
        thread.join()
