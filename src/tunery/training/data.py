"""A run's examples: a file's lines as token ids and masks."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunery.datasets.batches import Example
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer


def load_examples(
    chunks: Iterable[bytes], renderer: ChatRenderer, max_tokens: int
) -> list[Example]:
    """Return every line rendered.

    The file has passed its checks: a line that does not parse is a bug here, and raises.
    """
    return [rendered_example(renderer, parse(line), max_tokens) for line in lines(chunks)]


def rendered_example(renderer: ChatRenderer, chat: Mapping[str, Any], max_tokens: int) -> Example:
    """Return a chat line rendered; a longer one is cut at the end, as OpenAI does."""
    rendered = renderer.line(chat)
    return Example(rendered.token_ids[:max_tokens], rendered.supervised[:max_tokens])
