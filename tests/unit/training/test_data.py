"""A file's lines as examples."""

from pathlib import Path

import orjson

from tunery.datasets.rendering import ChatRenderer
from tunery.training.data import load_examples


def test_every_line_is_rendered_and_cut_at_the_end(tiny_model: Path) -> None:
    turns = [
        [{"role": "user", "content": "u" * size}, {"role": "assistant", "content": "a" * size}]
        for size in (1, 3, 20)
    ]
    data = b"\n".join(orjson.dumps({"messages": messages}) for messages in turns)
    chunks = [data[start : start + 7] for start in range(0, len(data), 7)]
    examples = load_examples(chunks, ChatRenderer.load(tiny_model), 40)
    # A turn has its two marks, its role, its content and two newlines.
    whole = [len("user") + len("assistant") + 2 * (size + 4) for size in (1, 3, 20)]
    assert whole[2] > 40
    assert [len(example.token_ids) for example in examples] == [whole[0], whole[1], 40]
    assert [len(example.supervised) for example in examples] == [whole[0], whole[1], 40]
    # Learned are the answer and the mark that ends it: the last has 39 tokens before it.
    assert [example.learned for example in examples] == [2, 4, 1]
