"""llguidance within bounds, and the process that tries a grammar out in them: run as a module.

Knows no schema and no base's tokenizer: a grammar is tried with a vocabulary of single bytes. Some
grammars take llguidance minutes, or more memory than there is, before any of its own bounds is met.
So they are tried in a process that can be killed.
"""

import re
import resource
import signal
import sys

import orjson
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

_MEMORY_BYTES = 1024**3  # of address space: about 200 MB are the interpreter's
_REASON_CHARACTERS = 300
# What stands before the reason: the place in a grammar that the caller has not seen.
_WHERE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")
LENGTH_BYTES = 4


def parser_limits() -> LLParserLimits:
    """Return the bounds on the work of a token, a few milliseconds, and of a grammar's start.

    Speeds and sizes are llguidance's own figures.
    """
    return LLParserLimits(
        initial_lexer_fuel=500_000,  # 50 a microsecond
        step_lexer_fuel=70_000,  # 14 a microsecond
        step_max_items=50_000,  # 20 a microsecond
        max_lexer_states=10_000,  # 2 kB each, for every answer in the making
        max_grammar_size=200_000,
        verbose_errors=False,
    )


def reason_of(matcher: LLMatcher) -> str:
    """Return one line that says why a matcher has failed, without the grammar itself."""
    first, *others = (matcher.get_error().strip() or str(matcher.stop_reason())).splitlines()
    errors = [line for line in others if line.startswith("error: ")]
    if first.startswith("NoExtension"):
        return "no answer can follow it"
    reason = " ".join([_WHERE.sub("", first), *errors[:1]])
    return reason.rstrip(" .:")[:_REASON_CHARACTERS]


class _Bytes:
    """A vocabulary of single bytes, and an end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<|end of the answer|>")
    special_token_ids = (256,)

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def main() -> None:
    """Answer each grammar on standard input with a line: why none can follow it, or null.

    A grammar comes as its length, big-endian, and its UTF-8. The first line says that it begins.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()))
    _answer("ready")
    while len(head := sys.stdin.buffer.read(LENGTH_BYTES)) == LENGTH_BYTES:
        grammar = sys.stdin.buffer.read(int.from_bytes(head)).decode()
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=parser_limits())
        matcher.compute_bitmask()
        _answer(reason_of(matcher) if matcher.is_error() else None)


def _answer(value: str | None) -> None:
    sys.stdout.buffer.write(orjson.dumps(value) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
