"""The models at hand: a folder each, with `tunery.json` beside or instead of the weights.

A base that is already elsewhere on this machine is named by path and not copied. A name belongs to
one model; who writes holds a lock on the folder, who reads need not.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from tunery.domain.errors import InvalidRequest, TuneryError
from tunery.domain.models import BaseModel, EmbeddingModel, Prices

ENTRY = "tunery.json"
DIGESTED = (
    "model*.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
DIGESTED_EMBEDDING = (*DIGESTED, "sentence_bert_config.json", "1_Pooling/config.json")
_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")  # of a base, besides weights
_INDEX = "model.safetensors.index.json"
DEFAULT_PRICES = Prices(
    # OpenAI's prices of August 2023 for gpt-3.5-turbo and its tunes, in dollars a million tokens.
    training=Decimal("8"),
    input=Decimal("1.5"),
    output=Decimal("2"),
    tuned_input=Decimal("12"),
    tuned_output=Decimal("16"),
)
DEFAULT_EMBEDDING_PRICE = Decimal("0.02")  # OpenAI's price of text-embedding-3-small

Entry = BaseModel | EmbeddingModel


class Catalogue:
    """The entries below one folder. Looked at each time: another process may add or change one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # ---- reading

    def entries(self) -> list[Entry]:
        """Return every model, by name."""
        return [_read(path) for path in sorted(self.root.glob(f"*/{ENTRY}"))]

    def all(self) -> list[BaseModel]:
        """Return every base, by name."""
        return [entry for entry in self.entries() if isinstance(entry, BaseModel)]

    def embeddings(self) -> list[EmbeddingModel]:
        """Return every embedding model, by name."""
        return [entry for entry in self.entries() if isinstance(entry, EmbeddingModel)]

    def get(self, name: str) -> BaseModel | None:
        """Return the base whose own name this is."""
        entry = self.entry(name)
        return entry if isinstance(entry, BaseModel) else None

    def entry(self, name: str) -> Entry | None:
        """Return the model whose own name this is."""
        if not valid_name(name):
            return None
        try:
            return _read(self.root / name / ENTRY)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def embedding(self, name: str) -> EmbeddingModel | None:
        """Return the embedding model that answers to this name."""
        return next((model for model in self.embeddings() if name in model.names), None)

    def embedding_of(self, digest: str) -> EmbeddingModel | None:
        """Return the embedding model with these files."""
        return next((model for model in self.embeddings() if model.digest == digest), None)

    # ---- writing

    def add(
        self,
        name: str,
        folder: Path,
        *,
        aliases: tuple[str, ...],
        learning_rate: float,
        prices: Prices = DEFAULT_PRICES,
        check: Callable[[Path], None] | None = None,
    ) -> BaseModel:
        """Enter the base in `folder`; raise InvalidRequest where something of it is missing.

        `check` is called once its files are there, and may raise it too: with torch, which knows
        whether its layers can be learned.
        """
        _check_folder(name, folder, _FILES, template=True)
        if check is not None:
            check(folder)
        base = BaseModel(
            name=name,
            aliases=aliases,
            path=str(folder.resolve()),
            digest=digest(folder),
            context_tokens=_number(folder, "config.json", "max_position_embeddings", "context"),
            learning_rate=learning_rate,
            prices=prices,
            created_at=int(time.time()),
        )
        self._enter(base)
        return base

    def add_embedding(
        self,
        name: str,
        folder: Path,
        *,
        aliases: tuple[str, ...],
        price: Decimal = DEFAULT_EMBEDDING_PRICE,
    ) -> EmbeddingModel:
        """Enter the model in `folder`, which is laid out as sentence-transformers does."""
        settings, pooling = "sentence_bert_config.json", "1_Pooling/config.json"
        _check_folder(name, folder, ("config.json", "tokenizer.json", settings, pooling))
        if _object(folder / pooling).get("pooling_mode_mean_tokens") is not True:
            raise InvalidRequest(
                f"{folder / pooling} asks for something else than the mean over the tokens; an"
                " embedding model needs pooling_mode_mean_tokens here."
            )
        model = EmbeddingModel(
            name=name,
            aliases=aliases,
            path=str(folder.resolve()),
            digest=digest(folder, DIGESTED_EMBEDDING),
            dimensions=_number(folder, "config.json", "hidden_size", "dimensions"),
            max_tokens=min(
                _number(folder, settings, "max_seq_length", "longest text"),
                _number(folder, "config.json", "max_position_embeddings", "positions"),
            ),
            price=price,
            created_at=int(time.time()),
        )
        self._enter(model)
        return model

    def alias(self, name: str, target: str) -> Entry:
        """Have the model `target`, by any of its names, answer to `name` as well."""
        with self._locked():
            entry = self._named(target)
            if name not in entry.names:
                entry = replace(entry, aliases=(*entry.aliases, name))
                self._check_names(entry, [name])
                _write(self.root, entry)
        return entry

    def unalias(self, name: str) -> list[Entry]:
        """Have no model answer to `name`; return those that did, as they are now."""
        with self._locked():
            entries = self.entries()
            holders = [entry for entry in entries if name in entry.aliases]
            if not holders:
                owned = name in (entry.name for entry in entries)
                raise InvalidRequest(
                    f"{name!r} is a model's own name and stays." if owned else _nobody(name)
                )
            changed = [replace(one, aliases=_without(one.aliases, name)) for one in holders]
            for entry in changed:
                _write(self.root, entry)
        return changed

    def add_free_aliases(self, target: str, names: Iterable[str]) -> tuple[str, ...]:
        """Give the model those of `names` that no model answers to; return them."""
        with self._locked():
            entry = self._named(target)
            added = _without(self.free_names(names, besides=entry.name), *entry.names)
            if added:
                _write(self.root, replace(entry, aliases=(*entry.aliases, *added)))
        return added

    def free_names(self, names: Iterable[str], *, besides: str) -> tuple[str, ...]:
        """Return those of `names` that no model answers to, the one called `besides` left out."""
        others = (entry for entry in self.entries() if entry.name != besides)
        return _without(dict.fromkeys(names), *(name for other in others for name in other.names))

    def _enter(self, entry: Entry) -> None:
        with self._locked():
            self._check_names(entry, entry.names)
            _write(self.root, entry)

    def _named(self, name: str) -> Entry:
        entries = self.entries()
        for entry in entries:
            if name == entry.name:
                return entry
        for entry in entries:
            if name in entry.aliases:
                return entry
        raise InvalidRequest(_nobody(name))

    def _check_names(self, entry: Entry, names: Iterable[str]) -> None:
        """Raise InvalidRequest where one of `names` cannot be this entry's."""
        others = [other for other in self.entries() if other.name != entry.name]
        for name in names:
            if not valid_alias(name):
                raise InvalidRequest(
                    f"Got the name {name[:100]!r}; needed letters, digits, '.', '_', '-', '/'."
                )
            for other in others:
                if name == other.name:
                    raise InvalidRequest(f"{name!r} is another model's own name; choose another.")
                if name in other.aliases:
                    raise InvalidRequest(
                        f"{other.name!r} answers to {name!r}; run `tunery models unalias {name}`"
                        " first, or choose another name."
                    )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out: two that read, change and write would lose one change."""
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _nobody(name: str) -> str:
    return f"No model answers to {name[:100]!r}; `tunery models list` shows the names there are."


def _without(names: Iterable[str], *unwanted: str) -> tuple[str, ...]:
    return tuple(name for name in names if name not in unwanted)


def _read(path: Path) -> Entry:
    """Return the entry of a file, which is read again only when it is another one."""
    status = path.stat()
    return _parsed(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _parsed(path: Path, *version: int) -> Entry:
    value: dict[str, Any] = orjson.loads(path.read_bytes())
    kind = value.pop("kind", "base")
    value["aliases"] = tuple(value["aliases"])
    if kind == "embedding":
        return EmbeddingModel(**{**value, "price": Decimal(value["price"])})
    if kind != "base":
        raise TuneryError(
            f"{path} describes a model of the kind {kind!r}; this version knows base and"
            " embedding. Remove the folder, or run the version that wrote it."
        )
    value["prices"] = Prices(**{key: Decimal(v) for key, v in value["prices"].items()})
    return BaseModel(**value)


def _write(root: Path, entry: Entry) -> None:
    kind = {"kind": "embedding"} if isinstance(entry, EmbeddingModel) else {}
    target = root / entry.name / ENTRY
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    value = {**kind, **asdict(entry)}
    with temporary.open("wb") as handle:
        handle.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2))
        handle.flush()
        os.fsync(handle.fileno())
    temporary.rename(target)
    for folder in (target.parent, root):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_folder(
    name: str, folder: Path, needed: Iterable[str], *, template: bool = False
) -> None:
    """Raise InvalidRequest where `name` is none or `folder` holds no model."""
    if not valid_name(name):
        raise InvalidRequest(f"Got the name {name!r}; needed letters, digits, '.', '_', '-'.")
    missing = [one for one in needed if not (folder / one).is_file()] + _missing_weights(folder)
    if template and not missing:
        missing = _missing_template(folder)
    if missing:
        raise InvalidRequest(
            f"{folder} is no model in Hugging Face layout: it lacks {', '.join(missing)}."
        )


def missing_files(folder: Path) -> list[str]:
    """Return the files that the folder of a base lacks by now, by name."""
    missing = [one for one in _FILES if not (folder / one).is_file()] + _missing_weights(folder)
    return missing or _missing_template(folder)


def _missing_weights(folder: Path) -> list[str]:
    """Return the files of weights that the folder lacks: those of its index, where it has one."""
    index = folder / _INDEX
    if index.is_file():
        shards = _object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(v, str) for v in shards.values()):
            raise InvalidRequest(f"{index} names no weight_map, the files of the weights.")
        return [one for one in sorted(set(shards.values())) if not (folder / one).is_file()]
    return [] if list(folder.glob("model*.safetensors")) else ["safetensors weights"]


def _missing_template(folder: Path) -> list[str]:
    if (folder / "chat_template.jinja").is_file():
        return []
    settings = _object(folder / "tokenizer_config.json")
    return [] if isinstance(settings.get("chat_template"), str) else ["chat_template.jinja"]


def _object(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{path} is no JSON object.")
    return value


def _number(folder: Path, file: str, key: str, what: str) -> int:
    value = _object(folder / file).get(key)
    if not isinstance(value, int):
        raise InvalidRequest(f"{folder / file} names no {key}, the model's {what}.")
    return value


def valid_name(name: str) -> bool:
    """Return whether `name` can name a model: it becomes a folder and a part of model names."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None


def valid_alias(name: str) -> bool:
    """Return whether a model can answer to `name`: colons are kept for tuned models' names."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}", name) is not None


def digest(folder: Path, patterns: Iterable[str] = DIGESTED) -> str:
    """Return the SHA-256 over every file that decides what the model answers."""
    total = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            with path.open("rb") as handle:
                content = hashlib.file_digest(handle, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}:{content}\n".encode())
    return total.hexdigest()
