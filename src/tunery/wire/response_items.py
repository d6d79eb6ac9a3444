"""The items of a response's input: what can be read of them, and the messages that they are."""

from collections.abc import Iterable
from typing import Any

from tunery.datasets.conversation import find_unpaired
from tunery.domain.errors import InvalidRequest
from tunery.domain.ids import new_id
from tunery.domain.responses import Item
from tunery.protocol.response_items import (
    FunctionCallItem,
    FunctionCallOutput,
    Input,
    InputPart,
    InputText,
    Message,
    MessagePart,
    OtherItem,
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
    for number, item in enumerate(items):
        where = f"input.{number}"
        if isinstance(item, OtherItem):
            raise unsupported(f"{where}.type", f"Items of type '{item.type}' cannot be read yet.")
        if item.id is not None:
            _add_id(where, item.id, known)
        if not isinstance(item, Message):
            _check_function_item(where, item)
    for where, message in messages:
        _refuse(where, message)


def from_wire_input(given: Input | None) -> list[Item]:
    """Return the input as items that are kept: messages of parts, each with an id of its own."""
    if given is None:
        return []
    if isinstance(given, str):
        return [_item(Message(role="user", content=given))]
    return [
        _item(item) if isinstance(item, Message) else _function_item(item)
        for item in given
        if not isinstance(item, OtherItem)
    ]


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
    """Return the conversation that items are, as it is rendered.

    Calls belong to the answer before them, if there is one. Raises InvalidRequest for a call
    without an output, or an output without a call.
    """
    messages: list[dict[str, Any]] = []
    for item in items:
        if item["type"] == "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        elif item["type"] == "function_call_output":
            content = _text_parts(item["output"])
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
        else:
            messages.append({"role": item["role"], "content": _text_parts(item["content"])})
    unpaired = find_unpaired(messages)
    if unpaired is not None:
        raise InvalidRequest(
            f"Invalid value for 'input': an item {unpaired.problem}.",
            param="input",
            code="invalid_value",
        )
    return messages


def _text_parts(given: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if isinstance(given, str):
        return given
    return [{"type": "text", "text": part["text"]} for part in given]


def _item(message: Message) -> Item:
    """Return a message as it is kept and listed: what came with an earlier answer stays with it."""
    given = message.content
    texts: list[InputText | OutputText] = (
        [InputText(type="input_text", text=given)]
        if isinstance(given, str)
        else [_said(part) for part in given if isinstance(part, InputText | OutputText | Refusal)]
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


def _said(part: InputText | OutputText | Refusal) -> InputText | OutputText:
    """Return a part; an answer that refused said so."""
    return OutputText(type="output_text", text=part.refusal) if isinstance(part, Refusal) else part


def _function_item(item: FunctionCallItem | FunctionCallOutput) -> Item:
    """Return a call, or what it gave, as it is kept and listed."""
    kept = {"type": item.type, "status": item.status or "completed", "call_id": item.call_id}
    if isinstance(item, FunctionCallItem):
        own = {"name": item.name, "arguments": item.arguments}
        return {"id": item.id or new_id("fc_"), **kept, **own}
    output: str | list[dict[str, Any]] = (
        item.output
        if isinstance(item.output, str)
        else [
            {"type": "input_text", "text": part.text}
            for part in item.output
            if isinstance(part, InputText)
        ]
    )
    return {"id": item.id or new_id("fco_"), **kept, "output": output}


def _check_function_item(where: str, item: FunctionCallItem | FunctionCallOutput) -> None:
    for name in ("namespace", "caller"):
        if getattr(item, name) is not None:
            raise unsupported(f"{where}.{name}")
    if isinstance(item, FunctionCallItem):
        if item.is_async:
            raise unsupported(f"{where}.async")
        return
    if item.name is not None:
        raise unsupported(f"{where}.name", "An output is known by the call that it names.")
    if item.call_id is None:
        raise InvalidRequest(
            f"Missing required parameter: '{where}.call_id'.",
            param=f"{where}.call_id",
            code="missing_required_parameter",
        )
    for number, part in enumerate(item.output if isinstance(item.output, list) else ()):
        _refuse_part(f"{where}.output.{number}", part)


def _refuse_part(place: str, part: InputPart | MessagePart) -> None:
    if not isinstance(part, InputText | OutputText):
        raise unsupported(f"{place}.type", f"Parts of type '{part.type}' cannot be read.")
    if isinstance(part, OutputText) and part.annotations:
        raise unsupported(f"{place}.annotations")
    if isinstance(part, InputText) and part.prompt_cache_breakpoint is not None:
        raise unsupported(f"{place}.prompt_cache_breakpoint")


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
        if not isinstance(part, Refusal):
            _refuse_part(f"{where}.content.{number}", part)
