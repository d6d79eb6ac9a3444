"""The check of files that come through a pipe: run as a module, in a process of its own.

It is given an order, one line of JSON, and then the bytes of the files it names, one after the
other; it answers with the report's JSON. So the process that asks stays small and quick, whatever
the file is, and can end this one at any time.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import orjson

from tunery.datasets.preparing.check_order import CheckOrder, order_of
from tunery.datasets.preparing.items import Item, Progress, Source
from tunery.datasets.preparing.report import report_of
from tunery.datasets.preparing.shapes import Plan, Shape
from tunery.datasets.preparing.survey import Reading, survey
from tunery.datasets.preparing.text_sources import items_of
from tunery.datasets.preparing.token_counts import TokenCounts
from tunery.datasets.preparing.writing import Choices, decide
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.files import LineFormat

_CHUNK_BYTES = 1024 * 1024
_NICE = 5


def carry_out(order: CheckOrder, stream: IO[bytes]) -> bytes:
    """Read the files of an order and return the report's JSON."""
    counts = None
    if order.base is not None:
        renderer = ChatRenderer.load(Path(order.base.path))
        counts = TokenCounts(renderer, order.base.name, order.base.max_tokens)
    training = _reading("training", stream, order.training_bytes)
    validation = None
    if order.validation_bytes is not None:
        validation = _reading("validation", stream, order.validation_bytes)
    found = survey(training, validation, counts=counts, seed=0)
    decision = decide(found, Choices(frozenset()))
    return orjson.dumps(report_of(found, decision, None).as_json())


def _reading(name: str, stream: IO[bytes], size: int) -> Reading:
    def read(progress: Progress) -> Iterator[Item]:
        del progress
        return items_of(_chunks(stream, size))

    source = Source("JSON Lines", "line", size, read)
    return Reading(name, source, Plan(Shape.LINES, LineFormat.CHAT))


def _chunks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise EOFError("the files ended early")
        size -= len(chunk)
        yield chunk


def main() -> None:
    """Carry out the order on standard input."""
    os.nice(_NICE)
    stream = sys.stdin.buffer
    sys.stdout.buffer.write(carry_out(order_of(stream.readline()), stream))


if __name__ == "__main__":
    main()
