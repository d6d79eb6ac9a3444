"""The base models at hand: a folder each, with `tunery.json` beside or instead of the weights.

A base that is already elsewhere on this machine is named by path and not copied.
"""

import hashlib
import re
import time
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from tunery.domain.errors import InvalidRequest
from tunery.domain.models import BaseModel, Prices

ENTRY = "tunery.json"
DIGESTED = (
    "model*.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
DEFAULT_PRICES = Prices(
    # OpenAI's prices of August 2023 for gpt-3.5-turbo and its tunes, in dollars a million tokens.
    training=Decimal("8"),
    input=Decimal("1.5"),
    output=Decimal("2"),
    tuned_input=Decimal("12"),
    tuned_output=Decimal("16"),
)


class Catalogue:
    """The entries below one folder. Read afresh each time: another process may add one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> list[BaseModel]:
        """Return every base, by name."""
        return [self._read(path) for path in sorted(self.root.glob(f"*/{ENTRY}"))]

    def get(self, name: str) -> BaseModel | None:
        """Return the base of this name."""
        path = self.root / name / ENTRY
        return self._read(path) if valid_name(name) and path.is_file() else None

    def add(
        self,
        name: str,
        folder: Path,
        *,
        aliases: tuple[str, ...],
        learning_rate: float,
        prices: Prices = DEFAULT_PRICES,
    ) -> BaseModel:
        """Enter the model in `folder`; raise InvalidRequest where something of it is missing."""
        if not valid_name(name):
            raise InvalidRequest(f"Got the name {name!r}; needed letters, digits, '.', '_', '-'.")
        missing = [
            needed
            for needed in ("config.json", "tokenizer.json", "tokenizer_config.json")
            if not (folder / needed).is_file()
        ]
        if missing or not list(folder.glob("model*.safetensors")):
            raise InvalidRequest(
                f"{folder} is no model in Hugging Face layout: it lacks"
                f" {', '.join(missing) or 'safetensors weights'}."
            )
        try:
            context_tokens = orjson.loads((folder / "config.json").read_bytes())[
                "max_position_embeddings"
            ]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise InvalidRequest(
                f"{folder / 'config.json'} names no max_position_embeddings, the model's context."
            ) from None
        base = BaseModel(
            name=name,
            aliases=aliases,
            path=str(folder.resolve()),
            digest=digest(folder),
            context_tokens=context_tokens,
            learning_rate=learning_rate,
            prices=prices,
            created_at=int(time.time()),
        )
        target = self.root / name / ENTRY
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(orjson.dumps(asdict(base), default=str, option=orjson.OPT_INDENT_2))
        temporary.rename(target)
        return base

    def _read(self, path: Path) -> BaseModel:
        value: dict[str, Any] = orjson.loads(path.read_bytes())
        value["aliases"] = tuple(value["aliases"])
        value["prices"] = Prices(**{key: Decimal(v) for key, v in value["prices"].items()})
        return BaseModel(**value)


def valid_name(name: str) -> bool:
    """Return whether `name` can name a base: it becomes a folder and a part of model names."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


def digest(folder: Path) -> str:
    """Return the SHA-256 over every file that decides what the model answers."""
    total = hashlib.sha256()
    for pattern in DIGESTED:
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()
            total.update(f"{path.name}:{content}\n".encode())
    return total.hexdigest()
