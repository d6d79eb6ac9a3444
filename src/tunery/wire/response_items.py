"""The items of a response's input: what can be read of them, and the messages that they are."""

from collections.abc import Iterable
from typing import Any

from tunery.domain.errors import InvalidRequest
from tunery.domain.ids import new_id
from tunery.domain.responses import Item
from tunery.protocol.response_items import (
    Input,
    InputText,
    Message,
    OutputText,
    Refusal,
)
from tunery.wire.refusals import unsupported

_OF_ANSWERS = ("output_text", "refusal")
_OF_QUESTIONS = ("input_text", "input_image", "input_file")


def check_input(given: Input | None) -> None:
    """Raise InvalidRequest that names the first field which is wrong or cannot be honoured."""
    items = given if isinstance(given, list) else []
    messages = [(f"input.{n}", item) for n, item in enumerate(items) if isinstance(item, Message)]
    known: set[str] = set()
    for where, message in messages:
        _check_parts(where, message)
        if message.id is not None:
            _add_id(where, message.id, known)
    for number, item in enumerate(items):
        if not isinstance(item, Message):
            raise unsupported(
                f"input.{number}.type", f"Items of type '{item.type}' cannot be read yet."
            )
    for where, message in messages:
        _refuse(where, message)


def from_wire_input(given: Input | None) -> list[Item]:
    """Return the input as items that are kept: messages of parts, each with an id of its own."""
    if given is None:
        return []
    if isinstance(given, str):
        return [_item(Message(role="user", content=given))]
    return [_item(item) for item in given if isinstance(item, Message)]


def check_new(items: Iterable[Item], earlier: Iterable[Item]) -> None:
    """Raise InvalidRequest for an item under an id that the conversation has already."""
    known = {item["id"] for item in earlier}
    for number, item in enumerate(items):
        _add_id(f"input.{number}", item["id"], known)


def _add_id(where: str, item_id: str, known: set[str]) -> None:
    if item_id in known:
        raise InvalidRequest(
            f"Duplicate item found with id {item_id}. Remove duplicate items from your input and"
            " try again.",
            param=f"{where}.id",
            code="invalid_value",
        )
    known.add(item_id)


def to_messages(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Return the conversation that items are, as it is rendered."""
    return [
        {
            "role": item["role"],
            "content": [{"type": "text", "text": part["text"]} for part in item["content"]],
        }
        for item in items
    ]


def _item(message: Message) -> Item:
    """Return a message as it is kept and listed: what came with an earlier answer stays with it."""
    given = message.content
    texts: list[InputText | OutputText] = (
        [InputText(type="input_text", text=given)]
        if isinstance(given, str)
        else [part for part in given if isinstance(part, InputText | OutputText)]
    )
    of_answer = message.role == "assistant"
    return {
        "id": message.id or new_id("msg_"),
        "type": "message",
        "status": message.status or "completed",
        "role": message.role,
        "content": [
            _output_part(part) if of_answer else {"type": "input_text", "text": part.text}
            for part in texts
        ],
    }


def _output_part(part: InputText | OutputText) -> dict[str, Any]:
    told = (part.logprobs or []) if isinstance(part, OutputText) else []
    return {
        "type": "output_text",
        "text": part.text,
        "annotations": [],
        "logprobs": [one.model_dump() for one in told],
    }


def _check_parts(where: str, message: Message) -> None:
    if isinstance(message.content, str):
        return
    known = _OF_ANSWERS if message.role == "assistant" else _OF_QUESTIONS
    for number, part in enumerate(message.content):
        if part.type not in known:
            param = f"{where}.content.{number}.type"
            raise InvalidRequest(
                f"Invalid value for '{param}': '{part.type}'. A message of role"
                f" '{message.role}' has parts of type {', '.join(map(repr, known))}.",
                param=param,
                code="invalid_value",
            )


def _refuse(where: str, message: Message) -> None:
    if message.phase is not None:
        raise unsupported(f"{where}.phase")
    if isinstance(message.content, str):
        return
    for number, part in enumerate(message.content):
        place = f"{where}.content.{number}"
        if isinstance(part, Refusal) or not isinstance(part, InputText | OutputText):
            raise unsupported(f"{place}.type", f"Parts of type '{part.type}' cannot be read.")
        if isinstance(part, OutputText) and part.annotations:
            raise unsupported(f"{place}.annotations")
        if isinstance(part, InputText) and part.prompt_cache_breakpoint is not None:
            raise unsupported(f"{place}.prompt_cache_breakpoint")
