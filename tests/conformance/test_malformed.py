"""What nobody should send is refused with a clear 4xx, and costs the server no memory."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from h11 import LocalProtocolError

from support.malformed import BAD_LINES, GOOD, NAMES, NOT_JSON, Body, with_field, wrong_values
from support.server import BASE, EMBEDDING, Server, poll

GROWTH_BYTES = 64 * 1024 * 1024
MIB = 1 << 20

HI = [{"role": "user", "content": "Hi"}]
# Each endpoint that takes JSON: a body that it would take, and a field to break in it.
ENDPOINTS: dict[str, tuple[dict[str, object], str]] = {
    "/v1/chat/completions": ({"model": BASE, "messages": HI, "max_tokens": 1}, "messages"),
    "/v1/completions": ({"model": BASE, "prompt": "x", "max_tokens": 1}, "stop"),
    "/v1/embeddings": ({"model": EMBEDDING, "input": "the sun"}, "model"),
    "/v1/moderations": ({"input": "x"}, "model"),
    "/v1/responses": ({"model": BASE, "input": "x", "max_output_tokens": 16}, "instructions"),
    "/v1/fine_tuning/jobs": ({"model": BASE, "training_file": "file-x"}, "method"),
    "/v1/batches": (
        {"input_file_id": "file-x", "endpoint": "/v1/responses", "completion_window": "24h"},
        "metadata",
    ),
    "/v1/uploads": (
        {"bytes": 5, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"},
        "expires_after",
    ),
    "/v1/webhook_endpoints": (
        {"name": "x", "url": "https://example.com/", "event_types": ["batch.completed"]},
        "event_types",
    ),
}


class Memory:
    """The resident memory of one process, idle and at its highest."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._idle = self._resident()
        self._highest = self._idle

    def _resident(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", self._status.read_text())
        assert found is not None
        return int(found[1]) * 1024

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample while the block runs."""
        done = threading.Event()

        def sample() -> None:
            while not done.wait(0.005):
                self._highest = max(self._highest, self._resident())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def check(self) -> None:
        """Fail where it has grown too far."""
        grown = (self._highest - self._idle) / MIB
        print(f"resident memory of the API: idle {self._idle / MIB:.0f} MiB, grown {grown:.1f} MiB")
        assert self._highest - self._idle < GROWTH_BYTES


@pytest.fixture(scope="module")
def memory(server: Server) -> Iterator[Memory]:
    """Return the API's memory, after each endpoint was asked once; it is checked at the end."""
    http = server.http()
    for path, (body, _) in ENDPOINTS.items():
        http.post(path, json=body)
    form = {"file": ("a.jsonl", GOOD)}
    http.post("/v1/files", files=form, data={"purpose": "fine-tune"})
    found = Memory(server.child("serve").pid)
    yield found
    found.check()


def told(response: httpx2.Response, *statuses: int) -> dict[str, Any]:
    """Return the error of a refusal, which says something in one line."""
    assert response.status_code in (statuses or range(400, 500)), response.text[:500]
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert 10 < len(error["message"]) < 2000
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: body.name)
def test_a_body_that_is_no_request_is_refused(
    server: Server, memory: Memory, path: str, body: Body
) -> None:
    headers = {"content-type": "application/json", **dict(body.headers)}
    content = body.make()
    with memory.watched():
        response = server.http().post(path, content=content, headers=headers)
    told(response, 400, 413, 415)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_field_of_no_use_is_named(server: Server, memory: Memory, path: str) -> None:
    base, field = ENDPOINTS[path]
    http = server.http()
    for _, value in wrong_values(field):
        content = with_field(base, field, value)
        with memory.watched():
            response = http.post(
                path, content=content, headers={"content-type": "application/json"}
            )
        assert str(told(response, 400)["param"]).partition(".")[0] == field


@pytest.mark.parametrize("body", BAD_LINES, ids=lambda body: body.name)
def test_a_bad_training_file_is_refused_or_its_line_is_named(
    server: Server, memory: Memory, body: Body
) -> None:
    http = server.http()
    content = body.make()
    with memory.watched():
        response = http.post(
            "/v1/files", files={"file": ("bad.jsonl", content)}, data={"purpose": "fine-tune"}
        )
    if response.status_code != 200:
        told(response, 400)
        return
    file_id = response.json()["id"]

    def checked() -> Any:
        file = http.get(f"/v1/files/{file_id}").json()
        return file if file["status"] in ("error", "processed") else None

    file = poll(checked, "the file is checked")
    assert file["status"] == "error", "it would have been trained on"
    assert re.search(r"line \d+", file["status_details"])


@pytest.mark.parametrize("name", NAMES)
def test_a_files_name_is_a_label_and_never_a_path(server: Server, name: str) -> None:
    before = {path for path in server.data.rglob("*") if "tunery.db" not in path.name}
    response = server.http().post(
        "/v1/files", files={"file": (name, GOOD)}, data={"purpose": "user_data"}
    )
    if response.status_code != 200:
        told(response, 400)
        return
    shown = response.json()["filename"]
    assert "/" not in shown
    assert "\\" not in shown
    new = {path for path in server.data.rglob("*") if "tunery.db" not in path.name} - before
    assert all(path.is_relative_to(server.data / "blobs") for path in new if path.is_file())


def form_of(parts: int) -> bytes:
    one = b'--x\r\ncontent-disposition: form-data; name="p%d"\r\n\r\nv\r\n'
    return b"".join(one % number for number in range(parts)) + b"--x--\r\n"


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data; boundary=x", form_of(100_000)),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a: b\r\n" * 100_000),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"a" * MIB),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", form_of(1)[:-6]),
        ("multipart/form-data; boundary=" + "x" * 500, b"--x--"),
        ("multipart/form-data", b"--x--"),
        ("application/x-www-form-urlencoded", b"purpose=fine-tune"),
        ("application/json", b"{}"),
        ("", b"\x00\xff"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_form_that_is_none_is_refused(
    server: Server, memory: Memory, content_type: str, content: bytes
) -> None:
    with memory.watched():
        response = server.http().post(
            "/v1/files", content=content, headers={"content-type": content_type}
        )
    told(response, 400)


def test_a_line_of_512_megabytes_is_refused_in_bounded_memory(
    server: Server, memory: Memory
) -> None:
    head = (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )

    def body() -> Iterator[bytes]:
        yield head + b'{"messages": "'
        for _ in range(510):
            yield b"x" * MIB
        yield b'"}\r\n--x--\r\n'

    with memory.watched():
        response = server.http().post(
            "/v1/files",
            content=body(),
            headers={"content-type": "multipart/form-data; boundary=x"},
            timeout=300,
        )
    assert "Line 1" in told(response, 400)["message"]


def test_a_content_length_that_lies_harms_nobody(server: Server, memory: Memory) -> None:
    with memory.watched():
        for length in ("99999999999999", "-5", "1e9", "abc"):
            try:
                response = server.http().post(
                    "/v1/chat/completions",
                    content=b"{}",
                    headers={"content-length": length},
                    timeout=2,
                )
            except (httpx2.HTTPError, LocalProtocolError):
                continue  # refused by closing, or still waiting for bytes that never come
            assert 400 <= response.status_code < 500
    http = server.http()
    assert http.get("/healthz").status_code == 200


def test_it_is_a_corpus_and_not_a_sample() -> None:
    bodies = len(ENDPOINTS) * (len(NOT_JSON) + len(list(wrong_values("x"))))
    assert bodies + len(BAD_LINES) + len(NAMES) + 10 >= 200


def test_after_all_of_it_the_server_answers(server: Server, memory: Memory) -> None:
    time.sleep(0.1)
    body = {"model": BASE, "messages": HI, "max_tokens": 2}
    response = server.http().post("/v1/chat/completions", content=json.dumps(body).encode())
    assert response.status_code == 200
