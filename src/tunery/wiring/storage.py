"""Database, blobs, catalogue, and the key over API keys: what every process needs."""

import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import orjson

from tunery.datasets.embedding import EmbeddingTokenizer
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.errors import NotFound, Unavailable
from tunery.domain.models import BaseModel, EmbeddingModel
from tunery.inference.places import EnginePlaces, arithmetic_of
from tunery.services.models import ModelDirectory
from tunery.settings import Settings
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.catalogue import Catalogue
from tunery.storage.database import Database
from tunery.telemetry import logger
from tunery.training.cache_folder import CacheFolder

_SECRET_BYTES = 32


def make_data_folder(settings: Settings) -> Path:
    """Return the data folder, made for this user only where it is new."""
    settings.data_path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings.data_path


def open_database(settings: Settings) -> Database:
    """Return the database of the settings."""
    if settings.is_sqlite():
        make_data_folder(settings)
    return Database(settings.database)


def open_existing_database(settings: Settings) -> Database:
    """Return the database; raise NotFound, and make nothing, where there is none yet."""
    if settings.is_sqlite() and not (settings.data_path / "tunery.db").is_file():
        raise NotFound(
            f"There is no tunery in {settings.data_path}; run `tunery up`, or give its --data."
        )
    return Database(settings.database)


def open_blobs(settings: Settings) -> LocalBlobStore:
    """Return the blob store of the settings."""
    return LocalBlobStore(make_data_folder(settings))


def open_caches(settings: Settings) -> CacheFolder:
    """Return where runs on this machine keep the tokens of their files."""
    make_data_folder(settings)
    return CacheFolder(settings.token_cache_path, settings.training.token_cache_bytes)


def open_directory(settings: Settings) -> ModelDirectory:
    """Return the catalogue, and its default base: with vLLM, that is the only one."""
    alone = settings.engine.kind == "vllm"
    return ModelDirectory(Catalogue(settings.models_path), settings.base, alone)


def load_pepper(settings: Settings) -> bytes:
    """Return the key of the HMAC over API keys; the first process of all makes it."""
    if settings.secret is not None:
        return settings.secret.get_secret_value().encode()
    path = make_data_folder(settings) / "secret"
    if not path.exists():
        write_private(path, secrets.token_bytes(_SECRET_BYTES).hex(), replace=False)
    return bytes.fromhex(path.read_text().strip())


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Write a file that only this user can read, whole or not at all.

    Without `replace`, a file that another process made in the meantime is left as it is.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        if replace:
            temporary.rename(path)
        elif not path.exists():
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
    finally:
        temporary.unlink(missing_ok=True)


def native_folder(settings: Settings) -> Path:
    """Return where compiled operations are kept: beside the models, for every data folder."""
    return settings.models_path.parent / "native"


def sharing_folder(settings: Settings) -> Path:
    """Return where engines and training runs on this machine say that they compute."""
    return settings.data_path / "engines"


@lru_cache(maxsize=8)
def _renderer(path: str, digest: str) -> ChatRenderer:
    del digest  # part of the key: a base that changes on disk is loaded anew
    return ChatRenderer.load(Path(path))


def renderer_of(base: BaseModel) -> ChatRenderer:
    """Return the base's chat renderer; raise Unavailable where its files are missing."""
    try:
        return _renderer(base.path, base.digest)
    except OSError as error:
        raise Unavailable(
            f"The base model's files are missing from {base.path}; run `tunery models pull`.",
            code="model_files_missing",
        ) from error


@lru_cache(maxsize=8)
def _embedding_tokenizer(path: str, digest: str, max_tokens: int) -> EmbeddingTokenizer:
    del digest  # as above
    if not (Path(path) / "tokenizer.json").is_file():  # tokenizers' own error has no type
        raise FileNotFoundError(path)
    return EmbeddingTokenizer(Path(path), max_tokens)


def embedding_tokenizer_of(model: EmbeddingModel) -> EmbeddingTokenizer:
    """Return the model's tokenizer; raise Unavailable where its files are missing."""
    try:
        return _embedding_tokenizer(model.path, model.digest, model.max_tokens)
    except OSError as error:
        raise Unavailable(
            f"The files of {model.name!r} are missing from {model.path}; run"
            f" `tunery models pull {model.name} --again`.",
            code="model_files_missing",
        ) from error


def engine_places(settings: Settings) -> EnginePlaces:
    """Return where engines' addresses and secrets are."""
    return EnginePlaces(settings.data_path / "engines")


def announce(settings: Settings, base_digest: str, url: str, secret: str) -> None:
    """Tell the other processes where a base's engine is, in a file that only this user can read."""
    address = engine_places(settings).address(base_digest)
    address.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(address, orjson.dumps({"url": url, "secret": secret}).decode())


def announce_arithmetic(settings: Settings, base_digest: str, arithmetic: str) -> None:
    """Tell the other processes what a base's engine computes in from now on.

    Where that cannot be written nothing is told, rather than what was true before.
    """
    path = arithmetic_of(engine_places(settings).address(base_digest))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, arithmetic)
    except OSError as error:  # a full disk: the engine answers all the same
        logger().warning("the arithmetic is not told", path=str(path), reason=str(error))
        with suppress(OSError):
            path.unlink(missing_ok=True)
