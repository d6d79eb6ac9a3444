"""Stored chat completions: the answer with what it was asked with, and its messages."""

from collections.abc import Mapping
from typing import Any

from tunery.domain.stored_completions import StoredCompletion
from tunery.protocol.stored_completions import StoredChatCompletion, StoredMessage

_WITH_DEFAULT = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
_ECHOED = ("seed", "tools", "tool_choice", "response_format")


def to_wire_stored_completion(stored: StoredCompletion) -> StoredChatCompletion:
    """Return a stored completion; what its request left open has OpenAI's default."""
    asked = stored.request
    echoed = {name: asked.get(name) for name in _ECHOED}
    for name, default in _WITH_DEFAULT.items():
        echoed[name] = default if asked.get(name) is None else asked[name]
    return StoredChatCompletion.model_validate(
        {
            **stored.response,
            **echoed,
            "metadata": stored.metadata or {},
            "request_id": stored.request_id,
            "input_user": asked.get("user"),
        }
    )


def to_wire_stored_message(message_id: str, message: Mapping[str, Any]) -> StoredMessage:
    """Return a message; one that came in parts has them in `content_parts`, and no content."""
    content = message.get("content")
    in_parts = isinstance(content, list)
    return StoredMessage(
        id=message_id,
        role=message["role"],
        content=None if in_parts else content,
        content_parts=content if in_parts else None,
        name=message.get("name"),
        refusal=message.get("refusal"),
        tool_calls=message.get("tool_calls"),
        function_call=message.get("function_call"),
        tool_call_id=message.get("tool_call_id"),
    )
