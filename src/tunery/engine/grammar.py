"""Which tokens an answer may go on with, by its grammar: llguidance over a base's own tokenizer.

Knows no logits and no row: sampling asks what is forbidden and tells what was taken.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from torch import Tensor

from tunery.datasets.grammars import parser_limits, reason_of, refusal
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.errors import Overloaded

_COMPILERS = 2
_COMPILE_S = 10.0
# What a byte of llguidance's mask forbids, its lowest bit first.
_FORBIDDEN = torch.tensor([[not byte >> bit & 1 for bit in range(8)] for byte in range(256)])


class GrammarMatcher:
    """One answer's place in its grammar. It never raises: what fails leaves a `failure`."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._mask = matcher.compute_bitmask()  # the first one takes longest: not in a step

    @property
    def failure(self) -> str | None:
        """Why the answer cannot go on, or None."""
        return reason_of(self._matcher) if self._matcher.is_error() else None

    @property
    def complete(self) -> bool:
        """Whether the grammar takes nothing more."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def forbidden(self) -> Tensor:
        """Return which tokens cannot come next, [vocabulary] of bool; after a failure, none."""
        mask = self._mask or self._matcher.compute_bitmask()
        self._mask = b""
        if self._matcher.is_error():
            return torch.zeros(self._vocabulary, dtype=torch.bool)
        places = torch.frombuffer(bytearray(mask), dtype=torch.uint8).int()
        return _FORBIDDEN[places].view(-1)[: self._vocabulary]

    def take(self, token: int) -> None:
        """Go on with a token."""
        self._matcher.consume_token(token)


class GrammarCompiler:
    """Makes matchers for one tokenizer, beside HTTP's loop and the scheduler's thread.

    `vocabulary` is the size of the network's head: ids that the tokenizer does not know are
    forbidden everywhere. `queue` bounds the grammars that wait.
    """

    def __init__(self, tokenizer: TextTokenizer, vocabulary: int, queue: int = 64) -> None:
        self._vocabulary = vocabulary
        spelling = _Spelling(tokenizer, vocabulary)
        self._tokenizer = LLTokenizer(
            TokenizerWrapper(spelling), n_vocab=len(spelling.tokens), eos_token=spelling.ends
        )
        self._threads = ThreadPoolExecutor(_COMPILERS, "grammar")
        self._queue = queue
        self._waiting = 0

    async def compile(self, grammar: str) -> GrammarMatcher:
        """Return a matcher at its start; raise InvalidRequest or Overloaded."""
        if self._waiting >= self._queue:
            raise Overloaded("Too many grammars are being compiled; try again.")
        self._waiting += 1
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self.compile_now, grammar)
        work.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(work), _COMPILE_S)
        except TimeoutError:
            raise refusal(f"it takes longer than {_COMPILE_S:g} s to compile") from None

    def compile_now(self, grammar: str) -> GrammarMatcher:
        """Return a matcher at its start; raise InvalidRequest where there can be none."""
        matcher = GrammarMatcher(
            LLMatcher(self._tokenizer, grammar, log_level=0, limits=parser_limits()),
            self._vocabulary,
        )
        if matcher.failure is not None:
            raise refusal(matcher.failure)
        return matcher

    def _done(self, work: "asyncio.Future[GrammarMatcher]") -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # a caller that left has not heard it


class _Spelling:
    """A tokenizer as llguidance wants it described: each token's bytes, and which are special.

    Made of our own spelling and not of tokenizer.json, where text that spells a special token is
    that token: here it stays text. One id more than the head has stands for an end that is never
    made, since llguidance needs one.
    """

    def __init__(self, tokenizer: TextTokenizer, vocabulary: int) -> None:
        known = range(min(vocabulary, tokenizer.vocabulary))
        special = tokenizer.special_ids | tokenizer.eos_ids
        self.ends = [vocabulary, *sorted(end for end in tokenizer.eos_ids if end < vocabulary)]
        self.eos_token_id = vocabulary
        self.bos_token_id = None
        self.special_token_ids = [*sorted(special.intersection(known)), vocabulary]
        self.tokens: list[bytes] = [
            tokenizer.token_id_text(token).encode()
            if token in special
            else tokenizer.token_id_bytes(token)
            for token in known
        ]
        self.tokens += [b""] * (vocabulary - len(known)) + [b"<|end of the answer|>"]
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> Sequence[int]:
        return self._tokenizer.text_ids(text)
