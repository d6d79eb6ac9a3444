"""A file's lines as examples, in a cache that depends on all that they are made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.text_model import make_merging_tokenizer, write_text_model
from support.tiny import TEMPLATE, make_byte_tokenizer
from tunery.datasets.rendering import ChatRenderer
from tunery.training.data import TrainingFile, load_examples

SIZES = (1, 3, 20)
# A turn has its two marks, its role, its content and two newlines.
WHOLE = [len("user") + len("assistant") + 2 * (size + 4) for size in SIZES]


def a_file() -> bytes:
    turns = [
        [{"role": "user", "content": "u" * size}, {"role": "assistant", "content": "a" * size}]
        for size in SIZES
    ]
    return b"\n".join(orjson.dumps({"messages": messages}) for messages in turns)


def load(folder: Path, model: Path, **changes: Any) -> TrainingFile:
    """Load `a_file`, or another, in pieces of seven bytes."""
    given = {"data": a_file(), "max_tokens": 40, "base_digest": "b" * 64, **changes}
    data = given.pop("data")

    def stream() -> Iterator[bytes]:
        return (data[start : start + 7] for start in range(0, len(data), 7))

    renderer, max_tokens = ChatRenderer.load(model), given.pop("max_tokens")
    return load_examples(
        stream, renderer, max_tokens, folder=folder, make_room=lambda _: None, **given
    )


def test_every_line_is_rendered_and_cut_at_the_end(tiny_model: Path, tmp_path: Path) -> None:
    examples = load(tmp_path, tiny_model).examples
    assert WHOLE[2] > 40
    assert list(examples.lengths) == [WHOLE[0], WHOLE[1], 40]
    assert [len(example.token_ids) for example in examples] == [WHOLE[0], WHOLE[1], 40]
    assert [len(example.supervised) for example in examples] == [WHOLE[0], WHOLE[1], 40]
    # Learned are the answer and the mark that ends it: the last has 39 tokens before it.
    assert [example.learned for example in examples] == [2, 4, 1]


def test_what_is_read_is_what_was_rendered(tiny_model: Path, tmp_path: Path) -> None:
    renderer = ChatRenderer.load(tiny_model)
    rendered = [renderer.line(orjson.loads(line)) for line in a_file().split(b"\n")]
    for _ in ("made", "found"):
        examples = load(tmp_path, tiny_model, max_tokens=500).examples
        assert [one.token_ids for one in examples] == [one.token_ids for one in rendered]
        assert [one.supervised for one in examples] == [one.supervised for one in rendered]


@pytest.mark.parametrize("what", ["data", "base_digest", "max_tokens", "template", "tokenizer"])
def test_a_cache_of_anything_else_is_not_taken(tmp_path: Path, what: str) -> None:
    cache = tmp_path / "cache"
    model = write_text_model(tmp_path / "model", make_byte_tokenizer())
    first = load(cache, model)
    assert load(cache, model).digest == first.digest
    assert len(list(cache.iterdir())) == 1
    changes: dict[str, Any] = {}
    if what == "template":
        text = TEMPLATE.replace("\n", " ")
        model = write_text_model(tmp_path / "other", make_byte_tokenizer(), template=text)
    elif what == "tokenizer":
        model = write_text_model(tmp_path / "other", make_merging_tokenizer())
    else:
        others = {"data": a_file() + b"\n", "base_digest": "c" * 64, "max_tokens": 39}
        changes = {what: others[what]}
    other = load(cache, model, **changes)
    assert len(list(cache.iterdir())) == 2
    assert (other.digest == first.digest) == (what != "data")
