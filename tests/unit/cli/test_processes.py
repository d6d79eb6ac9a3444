"""The sockets that the processes listen on."""

import asyncio
import socket

from tunery.cli.processes import listen


def test_a_small_answer_is_not_held_back_until_the_last_one_is_acknowledged() -> None:
    delays: list[int] = []

    async def run() -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ours = writer.get_extra_info("socket")
            delays.append(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        sock = listen("127.0.0.1", 0)
        async with await asyncio.start_server(answer, sock=sock):
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    asyncio.run(run())
    assert delays == [1]
