"""A base model's tokenizer, without torch: text to ids and back.

Text that people wrote is encoded with `text_ids`, where a control token's spelling is just
characters; only the chat template's own text may produce control tokens. Those are the special
ones, and those that are reserved, as marks of tool calls need to be.
"""

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer, decoders

_REMEMBERED, _REMEMBERED_CHARACTERS = 512, 256  # texts of a template, and the longest
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece spells a byte of its own


class TextTokenizer:
    """Encodes and decodes with the tokenizer.json of a model's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tokenizer.json"
        # Two instances, since the switch is a property of the instance and threads share them.
        self._template = _quiet(Tokenizer.from_file(str(self._path)))
        self.eos_ids = _eos_ids(folder, self._template)
        self.eos_texts = [str(self._template.id_to_token(i)) for i in self.eos_ids]
        made_of = [*map(str, sorted(self.eos_ids)), self._path.read_text()]
        self.digest = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
        self.vocabulary = self._template.get_vocab_size(with_added_tokens=True)
        every = self._template.get_vocab()
        self.longest_token = max(map(len, every))
        self.highest_id = max(every.values())  # ids may have gaps, and go beyond their number
        added = self._template.get_added_tokens_decoder().items()
        self._special = {token_id: str(token) for token_id, token in added if token.special}
        self.special_ids = frozenset(self._special)
        self.reserve("")
        # What a template writes between two contents is the same few texts again and again.
        self._template_ids = lru_cache(_REMEMBERED)(lambda text: _encode(self._template, text))
        self._byte_level = _decodes_byte_level(self._template)
        self._bytes: dict[int, bytes] = {}

    def reserve(self, marks: str) -> None:
        """Make control tokens of the added tokens that `marks` spells: before others use it."""
        value = json.loads(self._path.read_text())
        control = []
        for token in value.get("added_tokens") or ():
            if token["special"] or token["content"] in marks:
                token["special"] = True
                control.append(token["content"])
        self.control = Spellings(control)
        self._text = _quiet(Tokenizer.from_str(json.dumps(value)))
        self._text.encode_special_tokens = True

    def added_in(self, text: str) -> list[str]:
        """Return the added tokens that a text spells."""
        added = self._template.get_added_tokens_decoder().values()
        return [str(token) for token in added if str(token) in text]

    def template_ids(self, text: str) -> list[int]:
        """Return the ids of a template's own text, special tokens included."""
        if len(text) > _REMEMBERED_CHARACTERS:
            return _encode(self._template, text)
        return list(self._template_ids(text))

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of text that a person wrote: never a control token."""
        return _encode(self._text, text)

    @property
    def end_id(self) -> int:
        """Return the token that ends a text."""
        return min(self.eos_ids)

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of text that is to be gone on from, with no template.

        An empty text goes on from where a text ends and the next begins.
        """
        return self.text_ids(text) or [self.end_id]

    def special_in(self, text: str) -> tuple[tuple[str, int], ...]:
        """Return the special tokens that a text spells, with their ids."""
        return tuple((name, token_id) for token_id, name in self._special.items() if name in text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, special tokens left out; a cut character shows as U+FFFD."""
        return str(self._template.decode(ids, skip_special_tokens=True))

    def token_id_bytes(self, token_id: int) -> bytes:
        """Return what a token adds to a text's UTF-8 bytes: maybe a part of a character.

        Exact for byte-level BPE: the bytes of ids, put together, are those of their text. With
        other tokenizers they are those of the token's text after another token. Special tokens,
        and ids that the tokenizer does not know, add nothing.
        """
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._token_bytes(token_id)
        return found

    def token_id_text(self, token_id: int) -> str:
        r"""Return a token's text, a lone byte of a character as \xNN; a special token's name."""
        if token_id in self._special:
            return self._special[token_id]
        return self.token_id_bytes(token_id).decode("utf-8", "backslashreplace")

    def _token_bytes(self, token_id: int) -> bytes:
        spelled = self._template.id_to_token(token_id)
        if spelled is None or token_id in self._special:
            return b""
        if self._byte_level:
            if all(char in _BYTE_OF for char in spelled):
                return bytes(_BYTE_OF[char] for char in spelled)
            return str(spelled).encode()  # an added token with, say, a space in it
        if single := _BYTE_TOKEN.fullmatch(spelled):
            return bytes.fromhex(single[1])
        before = self.text_ids("a")  # some tokenizers drop the space before the first word
        return self.decode([*before, token_id])[len(self.decode(before)) :].encode()


class Spellings:
    """The spellings of control tokens: which texts could be a part in one."""

    def __init__(self, tokens: list[str]) -> None:
        self._all = "\n".join(tokens)
        self._whole = re.compile("|".join(map(re.escape, tokens)) or r"(?!)")
        self._starts = {token[:n] for token in tokens for n in range(1, len(token))}
        self._ends = {token[n:] for token in tokens for n in range(1, len(token))}
        self._longest = max(map(len, tokens), default=0)

    def touched_by(self, text: str) -> bool:
        """Return whether text spells a token, or may with what stands before or after it."""
        if self._whole.search(text) or text in self._all:
            return bool(text)
        sizes = range(1, min(self._longest, len(text) + 1))
        return any(text[-n:] in self._starts or text[:n] in self._ends for n in sizes)


def _quiet(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that neither fills up nor cuts off."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text. As a batch of one: only that lets other threads run meanwhile.

    "Fast" leaves out which characters each token stands for; its ids are the same.
    """
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=False)
    return list(encoding.ids)


def _byte_of_char() -> dict[str, int]:
    """Return GPT-2's alphabet: what prints in Latin-1 is itself, the rest counts on from 256."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_BYTE_OF = _byte_of_char()


def _decodes_byte_level(tokenizer: Tokenizer) -> bool:
    """Return whether the decoder, or the only one of a sequence, maps characters to bytes."""
    decoder = tokenizer.decoder
    if isinstance(decoder, decoders.Sequence):
        steps = json.loads(decoder.__getstate__())["decoders"]
        return [step["type"] for step in steps] == ["ByteLevel"]
    return isinstance(decoder, decoders.ByteLevel)


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
