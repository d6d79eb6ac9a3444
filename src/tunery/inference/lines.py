"""A response's body as lines."""

from collections.abc import AsyncGenerator, AsyncIterator


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what a newline ends; the other line breaks of Unicode are text here."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
