"""A process that dies with the one that started it.

The parent holds the other end of standard input and never writes to it: when the parent is gone,
however it went, the pipe closes and this process ends at once. Nothing is lost by that, since a
kill at any moment is survived anyway.
"""

import os
import sys
import threading

VARIABLE = "TUNERY_SUPERVISED"


def die_with_parent() -> None:
    """Watch standard input on a thread of its own; end the process when it closes."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def watch_if_supervised() -> None:
    """Do so if the supervisor started this process."""
    if os.environ.get(VARIABLE) == "1":
        die_with_parent()
