"""The messages of a conversation: what each role may carry, and what is rendered of them."""

from collections.abc import Sequence
from typing import Any

from tunery.domain.errors import InvalidRequest
from tunery.protocol.messages import ChatMessage, TextPart
from tunery.wire.refusals import unsupported

# What each role may have beside its content; everything else does not belong to it.
_OWN_FIELDS = {
    "system": {"name"},
    "developer": {"name"},
    "user": {"name"},
    "assistant": {
        "name",
        "refusal",
        "audio",
        "function_call",
        "tool_calls",
        "annotations",
        "parsed",
    },
    "tool": {"tool_call_id"},
    "function": {"name"},
}
_NEEDED = {"tool": "tool_call_id", "function": "name"}


def check_messages(messages: Sequence[ChatMessage]) -> None:
    """Raise InvalidRequest that names the first field which is wrong or cannot be honoured."""
    for number, message in enumerate(messages):
        _check_shape(f"messages.{number}", message)
    for number, message in enumerate(messages):
        _refuse(f"messages.{number}", message)


def from_wire_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return the conversation as it is rendered."""
    return [message.model_dump(include={"role", "content"}) for message in messages]


def _check_shape(where: str, message: ChatMessage) -> None:
    own = _OWN_FIELDS[message.role] | {"role", "content"}
    for name in ChatMessage.model_fields:
        if name not in own and getattr(message, name) not in (None, []):
            raise InvalidRequest(
                f"Invalid value for '{where}.{name}': a message of role '{message.role}' has none.",
                param=f"{where}.{name}",
                code="invalid_value",
            )
    needed = _NEEDED.get(message.role)
    if needed is not None and getattr(message, needed) is None:
        raise InvalidRequest(
            f"Missing required parameter: '{where}.{needed}'.",
            param=f"{where}.{needed}",
            code="missing_required_parameter",
        )
    instead = (message.tool_calls, message.function_call, message.refusal, message.audio)
    if message.content is None and not any(instead):
        raise InvalidRequest(
            f"Invalid value for '{where}.content': expected a string or a list of parts, got null.",
            param=f"{where}.content",
            code="invalid_value",
        )


def _refuse(where: str, message: ChatMessage) -> None:
    if message.role in ("tool", "function"):
        raise unsupported(f"{where}.role", f"Messages of role '{message.role}' cannot be read yet.")
    for name in ("name", "refusal", "audio", "function_call", "tool_calls", "annotations"):
        if getattr(message, name) not in (None, []):
            raise unsupported(f"{where}.{name}")
    if isinstance(message.content, list):
        for number, part in enumerate(message.content):
            if not isinstance(part, TextPart):
                raise unsupported(
                    f"{where}.content.{number}.type", f"Parts of type '{part.type}' cannot be read."
                )
