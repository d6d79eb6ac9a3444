"""Grammars for answers: what llguidance takes, within bounds that hold in every process.

Knows no schema and no tokenizer. A grammar is text in llguidance's dialect of Lark.
"""

from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import INVALID_GRAMMAR

MAX_GRAMMAR_BYTES = 512 * 1024
_REASON_CHARACTERS = 300


def parser_limits() -> LLParserLimits:
    """Return the bounds on the work of a grammar: a few hundred ms in all, a few ms a token.

    Speeds and sizes are llguidance's own figures.
    """
    return LLParserLimits(
        initial_lexer_fuel=500_000,  # 50 a microsecond
        step_lexer_fuel=70_000,  # 14 a microsecond
        step_max_items=50_000,  # 20 a microsecond
        max_lexer_states=20_000,  # 2 kB each
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def check_grammar(grammar: str) -> None:
    """Raise InvalidRequest unless some answer follows the grammar, as far as its start tells."""
    if len(grammar.encode()) > MAX_GRAMMAR_BYTES:
        raise refusal(f"it is larger than {MAX_GRAMMAR_BYTES} bytes")
    matcher = LLMatcher(_bytes_tokenizer(), grammar, log_level=0, limits=parser_limits())
    matcher.compute_bitmask()
    if matcher.is_error():
        raise refusal(reason_of(matcher))


def refusal(reason: str) -> InvalidRequest:
    """Return the error of a grammar that cannot be followed."""
    return InvalidRequest(
        f"The answer's grammar cannot be followed: {reason}", code=INVALID_GRAMMAR
    )


def reason_of(matcher: LLMatcher) -> str:
    """Return one line that says why a matcher has failed, without the grammar itself."""
    message = matcher.get_error().strip() or str(matcher.stop_reason())
    line = message.splitlines()[0].removesuffix("<non-verbose/>").strip()
    return line[:_REASON_CHARACTERS]


class _Bytes:
    """A vocabulary of single bytes, and an end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = [*(bytes([byte]) for byte in range(256)), b"<|end of the answer|>"]  # noqa: RUF012
    special_token_ids = (256,)

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


@cache
def _bytes_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))
