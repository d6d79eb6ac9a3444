"""What sends a request to an address that a tenant gave."""

from collections.abc import Mapping
from typing import Protocol


class NotDelivered(Exception):
    """No answer came. The text says why in a few words, and nothing of the address."""


class Sender(Protocol):
    """Posts to addresses outside, and only to those that may be asked."""

    async def check(self, url: str) -> None:
        """Raise InvalidRequest, naming `url`, where nothing may be sent to."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send `body` and return the answer's status; a redirection is an answer too.

        Raises InvalidRequest where nothing may be sent to, and NotDelivered where no answer came.
        """
