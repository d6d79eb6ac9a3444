"""Logs: one JSON object a line on standard error, or readable text on a terminal.

No secret and no tenant's content is ever passed to a logger; ids and counts are.
"""

import logging
import sys
from typing import cast

import structlog
from structlog.typing import FilteringBoundLogger

Logger = FilteringBoundLogger


def configure(level: str, component: str) -> None:
    """Set up logging for this process; `component` is bound to every line."""
    numeric = logging.getLevelNamesMapping()[level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component)


def logger() -> Logger:
    """Return a logger; bind what belongs to every line of a task with `.bind(job=...)`."""
    return cast(Logger, structlog.get_logger())
