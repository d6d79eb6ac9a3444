"""The kinds of things that make a line unfit, under the names of OpenAI's own notebook, and ours.

What exactly is wrong with a line, `datasets/checks` says in words; here it gets a name, so that
lines with the same fault can be counted and asked about together.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from tunery.datasets.checks import ROLES
from tunery.datasets.preparing.images import parts_of


class Fault(StrEnum):
    """What keeps a line from being trained on. The first seven names are OpenAI's."""

    DATA_TYPE = "data_type"
    MISSING_MESSAGES_LIST = "missing_messages_list"
    MESSAGE_MISSING_KEY = "message_missing_key"
    MESSAGE_UNRECOGNIZED_KEY = "message_unrecognized_key"
    UNRECOGNIZED_ROLE = "unrecognized_role"
    MISSING_CONTENT = "missing_content"
    NO_ASSISTANT_MESSAGE = "example_missing_assistant_message"
    UNREADABLE = "unreadable"
    EMPTY_ANSWER = "empty_answer"
    EXTRA_KEY = "extra_key"
    LAST_MESSAGE = "last_message"
    TOOLS = "tools"
    IMAGES = "images"
    WEIGHTS = "nothing_to_learn"
    MIXED_KINDS = "mixed_kinds"
    OTHER = "other"


REMOVED = {
    Fault.DATA_TYPE: "{lines} no JSON dictionary",
    Fault.MISSING_MESSAGES_LIST: "{lines} without a list of messages",
    Fault.MESSAGE_MISSING_KEY: "{lines} with a message that lacks its role or content",
    Fault.MESSAGE_UNRECOGNIZED_KEY: "{lines} with a key in a message that has no place there",
    Fault.UNRECOGNIZED_ROLE: "{lines} with a role that is not known",
    Fault.MISSING_CONTENT: "{lines} with a content that is no text",
    Fault.NO_ASSISTANT_MESSAGE: "{lines} without an answer of the assistant",
    Fault.UNREADABLE: "{lines} that cannot be read",
    Fault.EMPTY_ANSWER: "{lines} with an empty answer",
    Fault.EXTRA_KEY: "{lines} with keys that have no place in them",
    Fault.LAST_MESSAGE: "{lines} without an answer at the end",
    Fault.TOOLS: "{lines} with tools or calls that are not in order",
    Fault.IMAGES: "{lines} with images, which no base of this service reads",
    Fault.WEIGHTS: "{lines} in which every answer has weight 0",
    Fault.MIXED_KINDS: "{lines} of another kind than the first",
    Fault.OTHER: "{lines} that the service would refuse",
}
_CALL_KEYS = ("tool_calls", "function_call", "tool_call_id")


# How the check's words begin or end, where they tell more than the line itself.
_SAID = (
    ("contains an extra", Fault.EXTRA_KEY),
    ("the last message is from", Fault.LAST_MESSAGE),
    ("and empty", Fault.EMPTY_ANSWER),
    ("every assistant message has weight 0", Fault.WEIGHTS),
    ("a message from", Fault.MESSAGE_UNRECOGNIZED_KEY),
)


def fault_of(line: Mapping[str, Any], problem: str) -> Fault:
    """Return the name of what is wrong with a line; `problem` is what the check said."""
    if "a file has one kind" in problem:
        return Fault.MIXED_KINDS
    if "prompt" in line or "completion" in line:
        return _pair_fault(line)
    if "messages" not in line and "input" in line:
        return Fault.EMPTY_ANSWER if problem.endswith("and empty") else Fault.OTHER
    messages = line.get("messages")
    if not isinstance(messages, list) or not messages:
        return Fault.MISSING_MESSAGES_LIST
    for message in messages:
        found = _message_fault(message)
        if found is not None:
            return found
    if not any(message["role"] == "assistant" for message in messages):
        return Fault.NO_ASSISTANT_MESSAGE
    if next(parts_of(line), None) is not None:
        return Fault.IMAGES
    for words, fault in _SAID:
        if words in problem:
            return fault
    if any(key in line for key in ("tools", "functions", "parallel_tool_calls")) or any(
        message.get(key) for message in messages for key in _CALL_KEYS
    ):
        return Fault.TOOLS
    return Fault.OTHER


def _pair_fault(line: Mapping[str, Any]) -> Fault:
    for key in ("prompt", "completion"):
        if key not in line:
            return Fault.MESSAGE_MISSING_KEY
        if not isinstance(line[key], str):
            return Fault.MISSING_CONTENT
    return Fault.EXTRA_KEY if line["completion"].strip() else Fault.EMPTY_ANSWER


def _message_fault(message: Any) -> Fault | None:
    """Return what the notebook finds in a message; calls need no content."""
    if not isinstance(message, dict) or "role" not in message:
        return Fault.MESSAGE_MISSING_KEY
    if message["role"] not in ROLES:
        return Fault.UNRECOGNIZED_ROLE
    if message.get("tool_calls") or message.get("function_call"):
        return None
    if "content" not in message:
        return Fault.MESSAGE_MISSING_KEY
    if message["content"] is None or not isinstance(message["content"], str | list):
        return Fault.MISSING_CONTENT
    return None
