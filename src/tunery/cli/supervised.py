"""A process that dies with the one that started it.

The parent holds the other end of standard input: when the parent is gone, however it went, the
pipe closes and this process ends at once. Nothing is lost by that, since a kill at any moment is
survived anyway. What the parent does write is a word a line, for those who listen.
"""

import os
import sys
import threading
from collections.abc import Callable

VARIABLE = "TUNERY_SUPERVISED"


Hear = Callable[[bytes], None]


def ignore(line: bytes) -> None:
    """Hear a line and do nothing."""
    del line


def end_at_once() -> None:
    """End the process, whatever it does."""
    os._exit(0)


def die_with_parent(
    hear: Hear = ignore, begun: bytes = b"", end: Callable[[], None] = end_at_once
) -> None:
    """Watch standard input on a thread of its own; end the process when it closes.

    Each line that comes goes to `hear`; `begun` is what was read of them already.
    """

    def watch() -> None:
        data = begun
        while True:
            *lines, data = data.split(b"\n")
            for line in lines:
                hear(line)
            part = os.read(sys.stdin.fileno(), 4096)
            if not part:
                end()
                return
            data += part

    threading.Thread(target=watch, name="parent", daemon=True).start()


def watch_if_supervised() -> bool:
    """Do so if the supervisor started this process; return whether it did."""
    supervised = os.environ.get(VARIABLE) == "1"
    if supervised:
        die_with_parent()
    return supervised
