"""When a request to a service of OpenAI's kind is made again, how soon, and what it was told."""

import contextlib
import email.utils
import time
from collections.abc import Mapping

import orjson

TRIES = 8
_FIRST_WAIT_S, _MAX_WAIT_S, _MAX_ASKED_S = 0.5, 8.0, 120.0
_AGAIN = frozenset({408, 409, 429})


def may_pass(status: int) -> bool:
    """Return whether the same request may be answered another time, as OpenAI's client has it."""
    return status in _AGAIN or status >= 500


def told(body: bytes) -> str:
    """Return what an error's body says: one line, with nothing in it that moves a cursor."""
    try:
        text = str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = "no message"
    line = " ".join(text.split())[:300]
    return "".join(one if one.isprintable() else "?" for one in line)


def wait_s(attempt: int, headers: Mapping[str, str] | None) -> float:
    """Return the seconds to wait after a try, the first of them 0.

    As long as the service has asked for; else 0.5 s, and twice as long each time, up to 8 s.
    """
    asked = None if headers is None else _asked_s(headers)
    backoff = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2**attempt)
    return backoff if asked is None else min(asked, _MAX_ASKED_S)


def _asked_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the service asks to wait: in either header, as number or date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) / unit)
    with contextlib.suppress(KeyError, ValueError, TypeError):
        date = email.utils.parsedate_to_datetime(headers["retry-after"])
        return max(0.0, date.timestamp() - time.time())
    return None
