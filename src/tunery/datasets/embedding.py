"""Texts to the token ids that an embedding model reads, without torch.

A text that is too long is refused, never cut: the vector of half a text looks like an answer. Text
that people wrote is just characters here too, where it spells a special token.
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from tunery.domain.errors import InvalidRequest

_CHARACTERS_A_TOKEN = 128  # a longer text is not worth counting: no writing has such tokens
_TEXTS_AT_ONCE = 64


class EmbeddingTokenizer:
    """Encodes with the tokenizer.json of an embedding model's folder."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True
        self._max_tokens = max_tokens
        self._vocabulary = self._tokenizer.get_vocab_size()
        framed = self._tokenizer.encode("a")
        self._before = framed.ids[: framed.special_tokens_mask.index(0)]
        self._after = framed.ids[len(framed.ids) - framed.special_tokens_mask[::-1].index(0) :]
        self._frame = len(self._before) + len(self._after)

    def encode(self, inputs: Sequence[str | Sequence[int]]) -> list[list[int]]:
        """Return each input's ids with the special tokens around them: what is computed and billed.

        An input is a text, or ids of this model's own vocabulary, framed here like a text's. Raise
        InvalidRequest for the first that is empty, too long, or has an id that is not there.
        """
        found: list[list[int]] = []
        for start in range(0, len(inputs), _TEXTS_AT_ONCE):
            piece = inputs[start : start + _TEXTS_AT_ONCE]
            found += self._encode(piece, start)
        return found

    def _encode(self, inputs: Sequence[str | Sequence[int]], start: int) -> list[list[int]]:
        for place, one in enumerate(inputs, start):
            if not one:
                raise _refused(place, "it is empty; at least one token is needed", "invalid_value")
            if isinstance(one, str):
                self._check_characters(place, one)
            else:
                self._check_ids(place, one)
        texts = [one for one in inputs if isinstance(one, str)]
        encoded = iter(self._tokenizer.encode_batch(texts))
        framed = [
            list(next(encoded).ids) if isinstance(one, str) else [*self._before, *one, *self._after]
            for one in inputs
        ]
        for place, ids in enumerate(framed, start):
            if len(ids) > self._max_tokens:
                raise self._too_long(place, f"{len(ids)} tokens")
        return framed

    def _check_characters(self, place: int, text: str) -> None:
        if len(text) > self._max_tokens * _CHARACTERS_A_TOKEN:
            raise self._too_long(place, f"{len(text)} characters")

    def _check_ids(self, place: int, ids: Sequence[int]) -> None:
        if len(ids) > self._max_tokens:  # before each of them is looked at
            raise self._too_long(place, f"{len(ids) + self._frame} tokens")
        wrong = next((one for one in ids if not 0 <= one < self._vocabulary), None)
        if wrong is not None:
            raise _refused(
                place,
                f"it has the token id {wrong}; this model's own ids are 0 to"
                f" {self._vocabulary - 1}. Send text, if the ids are another tokenizer's",
                "invalid_value",
            )

    def _too_long(self, place: int, size: str) -> InvalidRequest:
        return InvalidRequest(
            f"This model's maximum context length is {self._max_tokens} tokens. However, input"
            f" {place} has {size}; {self._frame} tokens stand around each text. Please"
            " reduce its length, or split it.",
            param="input",
            code="context_length_exceeded",
        )


def _refused(place: int, why: str, code: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid 'input[{place}]': {why}.", param="input", code=code)
