"""The messages of a conversation: what each role may carry, and what is rendered of them."""

from collections.abc import Sequence
from typing import Any

from tunery.datasets.conversation import find_unpaired
from tunery.domain.errors import InvalidRequest
from tunery.protocol.messages import ChatMessage, CustomCall, RefusalPart, TextPart
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


_RENDERED = ("name", "refusal", "tool_calls", "function_call", "tool_call_id")


def check_messages(messages: Sequence[ChatMessage]) -> None:
    """Raise InvalidRequest that names the first field which is wrong or cannot be honoured."""
    for number, message in enumerate(messages):
        _check_shape(f"messages.{number}", message)
    for number, message in enumerate(messages):
        _refuse(f"messages.{number}", message)
    unpaired = find_unpaired(from_wire_messages(messages))
    if unpaired is not None:
        param = f"messages.{unpaired.number}.{unpaired.field}"
        raise InvalidRequest(
            f"Invalid value for '{param}': the message {unpaired.problem}.",
            param=param,
            code="invalid_value",
        )


def from_wire_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return the conversation as it is rendered: what says nothing is left out."""
    return [_rendered(message) for message in messages]


def _rendered(message: ChatMessage) -> dict[str, Any]:
    said = message.model_dump(include={"role", "content", *_RENDERED})
    return {k: v for k, v in said.items() if k in ("role", "content") or v not in (None, [])}


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
    for name in ("audio", "annotations"):
        if getattr(message, name) not in (None, []):
            raise unsupported(f"{where}.{name}")
    if message.role == "assistant" and message.name is not None:
        raise unsupported(f"{where}.name", "An answer is told by its role alone.")
    for number, call in enumerate(message.tool_calls or ()):
        if isinstance(call, CustomCall):
            raise unsupported(
                f"{where}.tool_calls.{number}.type", "Calls of type 'custom' cannot be read."
            )
    if isinstance(message.content, list):
        for number, part in enumerate(message.content):
            if isinstance(part, RefusalPart) and message.role == "assistant":
                continue
            if not isinstance(part, TextPart):
                raise unsupported(
                    f"{where}.content.{number}.type", f"Parts of type '{part.type}' cannot be read."
                )
