"""A run's examples: a file's lines as token ids and masks, kept in a cache on disk."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tunery.datasets.batches import Example
from tunery.datasets.preferences import sides_of
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer
from tunery.training.token_cache import CachedExamples, TokenCache

_FORMAT = 1  # of the cache's files


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A file's examples, and the SHA-256 of the bytes that they were made of, in hex."""

    examples: CachedExamples
    digest: str


def load_examples(
    stream: Callable[[], Iterable[bytes]],
    renderer: ChatRenderer,
    max_tokens: int,
    *,
    base_digest: str,
    folder: Path,
    make_room: Callable[[int], None],
) -> TrainingFile:
    """Return every line rendered; longer ones are cut at the end, as OpenAI does.

    A preference gives two examples, one after the other: each answer with the conversation.
    Rendered lines are kept below `folder`, under a key of all that they depend on. `stream` gives
    the file's bytes each time it is called. The file has passed its checks: a line that does not
    parse is a bug here, and raises.
    """
    digest = hashlib.sha256()
    for chunk in stream():
        digest.update(chunk)
    depends_on = [_FORMAT, digest.hexdigest(), base_digest, renderer.digest, max_tokens]
    key = hashlib.sha256(orjson.dumps(depends_on)).hexdigest()

    def source() -> Iterator[Mapping[str, Any]]:
        return (side for line in lines(stream()) for side in sides_of(parse(line)))

    def render(side: Mapping[str, Any]) -> Example:
        rendered = renderer.line(side)
        return Example(rendered.token_ids[:max_tokens], rendered.supervised[:max_tokens])

    cache = TokenCache(folder / key, renderer.tokenizer.highest_id, make_room)
    return TrainingFile(cache.open(source, render), digest.hexdigest())
