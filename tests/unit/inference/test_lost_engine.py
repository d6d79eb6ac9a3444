"""An engine that goes away, or does not answer: whoever asked is told to try again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.rows import a_model
from tunery.domain.errors import Unavailable
from tunery.inference.embedded import EmbeddedEngine
from tunery.storage.blobs import LocalBlobStore

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()


async def broken_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[[-1.0")
    await writer.drain()


def asked(
    tmp_path: Path, blobs: LocalBlobStore, serve: Serve, ask: Callable[[EmbeddedEngine], Any]
) -> None:
    async def run() -> None:
        ended = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await serve(reader, writer)
            writer.close()
            ended.set()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        address = tmp_path / "engine.json"
        address.write_bytes(orjson.dumps({"url": f"http://127.0.0.1:{port}", "secret": "s"}))
        engine = EmbeddedEngine(address, blobs)
        try:
            with pytest.raises(Unavailable):
                await ask(engine)
        finally:
            await engine.close()
            await ended.wait()
            server.close()

    asyncio.run(run())


def test_a_look_at_an_engine_that_is_frozen_ends(
    tmp_path: Path, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunery.inference.embedded._HEALTH_S", 0.2)
    asked(tmp_path, blobs, silent, lambda engine: engine.health())


def test_an_engine_that_dies_within_its_answer_can_be_asked_again(
    tmp_path: Path, blobs: LocalBlobStore
) -> None:
    adapter = a_model().adapter
    asked(tmp_path, blobs, broken_off, lambda engine: engine.score([[1, 2]], "digest", adapter))
    asked(tmp_path, blobs, broken_off, lambda engine: engine.health())
