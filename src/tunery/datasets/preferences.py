"""Lines of preference files: a conversation and two answers to it, the first of them preferred.

OpenAI's guide and its specification spell the answers' keys differently; both are read. A line that
was checked is taken apart into two chats, so that whatever reads chats reads these too.
"""

from collections.abc import Mapping
from typing import Any

PREFERRED = ("preferred_output", "preferred_completion")
NON_PREFERRED = ("non_preferred_output", "non_preferred_completion")


def is_preference(line: Mapping[str, Any]) -> bool:
    """Return whether a line is meant as one of a preference file."""
    meant = any(key in line for key in ("input", *PREFERRED, *NON_PREFERRED))
    return meant and "messages" not in line


def chats_of(line: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a checked line as two chat lines, the preferred answer's first.

    Each has the whole conversation, and nothing to learn but its last message.
    """
    shared = line["input"]
    before = [
        message | {"weight": 0} if message["role"] == "assistant" else message
        for message in shared["messages"]
    ]
    preferred, non_preferred = (
        {**shared, "messages": [*before, next(line[key] for key in keys if key in line)[0]]}
        for keys in (PREFERRED, NON_PREFERRED)
    )
    return preferred, non_preferred


def sides_of(line: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return what a checked line is rendered as: the two chats of a preference, or the line."""
    return chats_of(line) if is_preference(line) else (line,)
