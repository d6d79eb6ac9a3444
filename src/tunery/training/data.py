"""A run's examples: a file's lines as token ids and masks."""

from collections.abc import Iterable

from tunery.datasets.batches import Example
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer


def load_examples(
    chunks: Iterable[bytes], renderer: ChatRenderer, max_tokens: int
) -> list[Example]:
    """Return every line rendered; longer ones are cut at the end, as OpenAI does.

    The file has passed its checks: a line that does not parse is a bug here, and raises.
    """
    examples = []
    for line in lines(chunks):
        rendered = renderer.line(parse(line))
        examples.append(Example(rendered.token_ids[:max_tokens], rendered.supervised[:max_tokens]))
    return examples
