"""Text of a file where people read it: in a terminal, a message, a page."""

import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Return a text without control characters: none moves a cursor, none ends a document."""
    return _UNPRINTABLE.sub("\ufffd", text)
