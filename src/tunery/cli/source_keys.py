"""The user's key at OpenAI: from a file or the environment, into the source and nowhere else."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import SecretStr

from tunery.cli.console import fail
from tunery.settings import SourceKeys

if TYPE_CHECKING:
    from tunery.outgoing.openai import OpenAISource

OURS = "sk-tunery-"

KeyFileOption = Annotated[
    Path | None,
    typer.Option("--api-key-file", help="File with your key there; default: $OPENAI_API_KEY."),
]
AdminKeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--admin-key-file",
        help="File with an admin key there, which usage is seen with; default: $OPENAI_ADMIN_KEY.",
    ),
]


def open_source(
    base_url: str, key_file: Path | None, admin_key_file: Path | None = None
) -> "OpenAISource":
    """Return the source behind the user's keys; end with a line where there is none."""
    from tunery.outgoing.openai import OPENAI, OpenAISource

    keys = SourceKeys()
    key = read_key(key_file, keys.openai_api_key)
    admin = read_key(admin_key_file, keys.openai_admin_key)
    if key is None:
        fail(
            f"No key for {base_url}: set OPENAI_API_KEY, or write it into a file and give"
            " --api-key-file."
        )
    if base_url.rstrip("/") == OPENAI and key.startswith(OURS):
        fail(
            "The key is one of tunery's own, as the env file of `tunery up` sets it; give OpenAI's"
            " with --api-key-file, or that service's --base-url."
        )
    if admin is not None and base_url.rstrip("/") == OPENAI and admin.startswith(OURS):
        admin = None  # from the same env file
    return OpenAISource(base_url, key, admin)


def read_key(path: Path | None, default: SecretStr | None) -> str | None:
    """Return the key in a file, else the default; end with a line where that is none."""
    if path is None:
        text = None if default is None else default.get_secret_value()
    else:
        try:
            text = path.expanduser().read_text()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{path} cannot be read as a key: {error}.")
    text = (text or "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isprintable() or " " in text:
        fail("The key has a character that no key has; it is one line of letters and digits.")
    return text
