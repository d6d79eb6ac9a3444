"""Bodies and files that nobody should send: what a service has to refuse, and survive."""

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MIB = 1 << 20
DEEP = 100_000
MANY = 1_000_000


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON body, by a name; made when it is sent, since some are large."""

    name: str
    make: Callable[[], bytes]
    headers: tuple[tuple[str, str], ...] = ()


def _text(text: str) -> Callable[[], bytes]:
    return text.encode


# No JSON object at all, or one that no parser should take.
NOT_JSON: tuple[Body, ...] = (
    Body("empty", lambda: b""),
    Body("blank", lambda: b"   \n"),
    Body("null", lambda: b"null"),
    Body("a number", lambda: b"1"),
    Body("a string", lambda: b'"x"'),
    Body("a list", lambda: b"[]"),
    Body("cut short", lambda: b'{"model": "gpt'),
    Body("a second value", lambda: b"{}{}"),
    Body("trailing comma", lambda: b'{"model": "x",}'),
    Body("single quotes", lambda: b"{'model': 'x'}"),
    Body("a comment", lambda: b'{"model": "x" /* y */}'),
    Body("byte order mark", lambda: b"\xef\xbb\xbf{}"),
    Body("UTF-16", lambda: '{"model": "x"}'.encode("utf-16")),
    Body("Latin-1", lambda: '{"model": "é"}'.encode("latin-1")),
    Body("overlong UTF-8", lambda: b'{"model": "\xc0\xaf"}'),
    Body("a surrogate's bytes", lambda: b'{"model": "\xed\xa0\x80"}'),
    Body("a NUL byte", lambda: b'{"model": "a\x00b"}'),
    Body("only NULs", lambda: b"\x00" * 1000),
    Body("NaN", lambda: b'{"model": NaN}'),
    Body("Infinity", lambda: b'{"model": -Infinity}'),
    Body("a lone surrogate", lambda: b'{"model": "\\ud800"}'),
    Body("a number too large", lambda: b'{"model": 1e999}'),
    Body("deep lists", lambda: b'{"model":' + b"[" * DEEP + b"]" * DEEP + b"}"),
    Body("deep objects", lambda: b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    Body("open lists", lambda: b"[" * DEEP),
    Body("many keys", lambda: b"{" + b",".join(b'"%d":0' % n for n in range(MANY)) + b"}"),
    Body("larger than a body may be", lambda: b'{"model": "' + b"x" * (9 * MIB) + b'"}'),
    Body(
        "compressed",
        lambda: gzip.compress(b'{"model": "' + b"x" * (64 * MIB) + b'"}'),
        (("content-encoding", "gzip"),),
    ),
    Body("compressed, not said", lambda: gzip.compress(b"{}")),
)


def wrong_values(field: str) -> Iterator[tuple[str, object]]:
    """Yield values that no field of ours takes, by name."""
    yield "a list of lists", [[[[]]]]
    yield "an object", {"$ref": "#/x", "__proto__": {"x": 1}}
    yield "a number", 10**18
    yield "a truth", True
    yield "a long text", {"text": "é" * MIB}
    yield "a list of everything", [None, 1, "x", {}, []] * 1000


def with_field(base: dict[str, object], field: str, value: object) -> bytes:
    """Return a body with one field replaced."""
    return json.dumps({**base, field: value}).encode()


# ---- training files: the line that is at fault, where the file may be uploaded at all

GOOD = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'


def _line(text: bytes) -> Callable[[], bytes]:
    return lambda: b"\n".join([GOOD] * 10 + [text]) + b"\n"


def _message(content: bytes) -> bytes:
    return (
        b'{"messages":[{"role":"user","content":'
        + content
        + b'},{"role":"assistant","content":"b"}]}'
    )


BAD_LINES: tuple[Body, ...] = (
    Body("not JSON", _line(b"hello")),
    Body("cut short", _line(GOOD[:40])),
    Body("a list", _line(b"[]")),
    Body("a number", _line(b"17")),
    Body("null", _line(b"null")),
    Body("no messages", _line(b"{}")),
    Body("messages of no kind", _line(b'{"messages":[1]}')),
    Body("empty messages", _line(b'{"messages":[]}')),
    Body("an unknown role", _line(b'{"messages":[{"role":"king","content":"x"}]}')),
    Body("no answer", _line(b'{"messages":[{"role":"user","content":"x"}]}')),
    Body("an unknown key", _line(GOOD[:-1] + b',"weight":1}')),
    Body("a key twice", _line(b'{"messages":[],"messages":' + GOOD[12:])),
    Body(
        "a key twice, deep inside", _line(GOOD.replace(b'"content":"a"', b'"content":"a",' * 2, 1))
    ),
    Body("NaN", _line(_message(b"NaN"))),
    Body("a NUL", _line(_message(b'"a\x00b"'))),
    Body("a lone surrogate", _line(_message(b'"\\udfff"'))),
    Body("a surrogate's bytes", _line(_message(b'"\xed\xbf\xbf"'))),
    Body("overlong UTF-8", _line(_message(b'"\xc0\x80"'))),
    Body("Latin-1", _line(_message(b'"\xe9"'))),
    Body("a byte order mark within", _line(b"\xef\xbb\xbf" + GOOD)),
    Body("deep lists", _line(b'{"messages":' + b"[" * DEEP + b"]" * DEEP + b"}")),
    Body("deep objects", _line(b'{"a":' * DEEP + b"1" + b"}" * DEEP)),
    Body("many keys", _line(b"{" + b",".join(b'"%d":0' % n for n in range(MANY)) + b"}")),
    Body("a content of objects", _line(_message(b'[{"type":"text","text":{}}]'))),
    Body("UTF-16", lambda: b"\n".join([GOOD] * 12).decode().encode("utf-16")),
    Body("NULs alone", lambda: b"\x00" * 4096),
    Body("a picture", lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 16),
    Body("compressed", lambda: gzip.compress(b"\n".join([GOOD] * 12))),
    Body("blank lines alone", lambda: b"\n" * 1000),
)

NAMES = (
    "../../../etc/passwd.jsonl",
    "..\\..\\windows\\train.jsonl",
    "/etc/passwd",
    "a/b/c.jsonl",
    "....//....//x.jsonl",
    "%2e%2e%2fx.jsonl",
    "train\n.jsonl",
    "é" * 300 + ".jsonl",
    ".",
    "..",
    "x" * 5000,
)
