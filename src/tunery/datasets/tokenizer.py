"""A base model's tokenizer, without torch: text to ids and back.

Text that people wrote is encoded with `text_ids`, where a special token's spelling is just
characters; only the chat template's own text may produce special tokens.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer


class TextTokenizer:
    """Encodes and decodes with the tokenizer.json of a model's folder."""

    def __init__(self, folder: Path) -> None:
        path = str(folder / "tokenizer.json")
        # Two instances, since the switch is a property of the instance and threads share them.
        self._template: Tokenizer = Tokenizer.from_file(path)
        self._text: Tokenizer = Tokenizer.from_file(path)
        for tokenizer in (self._template, self._text):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self._text.encode_special_tokens = True
        self.eos_ids = _eos_ids(folder, self._template)
        self.longest_token = max(map(len, self._template.get_vocab()))

    def template_ids(self, text: str) -> list[int]:
        """Return the ids of a template's own text, special tokens included."""
        return _encode(self._template, text)

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of text that a person wrote: never a special token."""
        return _encode(self._text, text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, special tokens left out; a cut character shows as U+FFFD."""
        return str(self._template.decode(ids, skip_special_tokens=True))


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text. As a batch of one: only that lets other threads run meanwhile."""
    (encoding,) = tokenizer.encode_batch([text], add_special_tokens=False)
    return list(encoding.ids)


def _eos_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids that end an answer, from the generation config, the config or the name."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            value = json.loads(path.read_text()).get("eos_token_id")
            if value is not None:
                return frozenset(value if isinstance(value, list) else [value])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    token = config.get("eos_token")
    if isinstance(token, dict):
        token = token["content"]
    found = None if token is None else tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"{folder} names no eos token; add eos_token_id to generation_config.json")
    return frozenset([found])
