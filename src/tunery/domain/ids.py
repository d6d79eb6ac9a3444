"""Ids as OpenAI writes them: a prefix that names the kind, then random letters and digits."""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def random_text(length: int) -> str:
    """Return `length` random letters and digits (5.95 bits each) from the system's generator."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def new_id(prefix: str) -> str:
    """Return `prefix` followed by 24 random characters: `new_id("file-")`."""
    return prefix + random_text(24)
