"""Conversations as other tools write them, as messages: ChatGPT's export, ShareGPT, Alpaca.

Raises NoConversation where there is none in an item.
"""

from collections.abc import Mapping
from typing import Any

import orjson

_FROM = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
    "function_call": "call",
}
_READ_TYPES = ("text", "multimodal_text", "code")


class NoConversation(Exception):
    """An item that holds no conversation which could be learned from; the text says why."""


def from_sharegpt(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"conversations": [{"from", "value"}, ...]}` as a line."""
    said = item["conversations"]
    if not isinstance(said, list) or not said:
        raise NoConversation("'conversations' needs to be a list of at least one message")
    messages: list[dict[str, Any]] = []
    if isinstance(item.get("system"), str) and item["system"]:
        messages.append({"role": "system", "content": item["system"]})
    calls = 0
    for number, one in enumerate(said, 1):
        if not isinstance(one, dict):
            raise NoConversation(f"message {number} is not a dictionary")
        speaker = str(one.get("from", one.get("role"))).lower()
        text = one.get("value", one.get("content"))
        role = _FROM.get(speaker)
        if role is None:
            raise NoConversation(f"message {number} is from {speaker[:40]!r}, who is not known")
        if not isinstance(text, str):
            raise NoConversation(f"message {number} has no text")
        if role == "call":
            calls += 1
            messages.append(_call(text, number, calls))
        elif role == "tool":
            messages.append({"role": "tool", "tool_call_id": f"call_{calls}", "content": text})
        else:
            messages.append({"role": role, "content": text})
    line: dict[str, Any] = {"messages": messages}
    tools = _tools(item.get("tools"))
    return {**line, "tools": tools} if tools else line


def _call(text: str, number: int, calls: int) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
        name, arguments = value["name"], value.get("arguments", value.get("parameters", {}))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise NoConversation(f"message {number} is a call, and no JSON with a name") from None
    if not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    function = {"name": name, "arguments": arguments}
    call = {"id": f"call_{calls}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _tools(value: Any) -> list[Any]:
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise NoConversation("'tools' is no JSON") from None
    if not isinstance(value, list):
        return []
    return [
        one if not isinstance(one, dict) or "function" in one else _as_tool(one) for one in value
    ]


def _as_tool(function: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": dict(function)}


def from_alpaca(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"instruction", "input", "output"}`, maybe with a system text and turns before."""
    parts = [item.get("instruction"), item.get("input")]
    asked = "\n\n".join(str(part) for part in parts if part not in (None, ""))
    messages: list[dict[str, Any]] = []
    if item.get("system"):
        messages.append({"role": "system", "content": str(item["system"])})
    for turn in item.get("history") or ():
        if not isinstance(turn, list) or len(turn) != 2:
            raise NoConversation("'history' needs to be a list of pairs")
        messages.append({"role": "user", "content": str(turn[0])})
        messages.append({"role": "assistant", "content": str(turn[1]), "weight": 0})
    output = item.get("output")
    messages += [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "" if output is None else str(output)},
    ]
    return {"messages": messages}


def from_chatgpt(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a conversation of ChatGPT's export: the branch that was shown last.

    What tools and the model said to each other is left out, so is what was not shown. Answers that
    follow each other are put together.
    """
    nodes = item["mapping"]
    if not isinstance(nodes, dict):
        raise NoConversation("'mapping' needs to be a dictionary")
    messages: list[dict[str, Any]] = []
    for message in _branch(nodes, item.get("current_node")):
        role = (message.get("author") or {}).get("role")
        hidden = (message.get("metadata") or {}).get("is_visually_hidden_from_conversation")
        text = _said(message.get("content") or {}, str(role))
        if role not in ("system", "user", "assistant") or hidden or not text:
            continue
        if role == "assistant" and message.get("recipient", "all") != "all":
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{text}"
        else:
            messages.append({"role": role, "content": text})
    if not any(message["role"] == "assistant" for message in messages):
        raise NoConversation("nothing in it was answered in text")
    return {"messages": messages}


def _branch(nodes: Mapping[str, Any], current: Any) -> list[dict[str, Any]]:
    """Return the messages from the root to the current node, or to the last one of all."""
    if current not in nodes:
        current = next(reversed(list(nodes)), None)
    found, seen = [], set()
    while current in nodes and current not in seen:
        seen.add(current)
        node = nodes[current]
        if not isinstance(node, dict):
            break
        if isinstance(node.get("message"), dict):
            found.append(node["message"])
        current = node.get("parent")
    return found[::-1]


def _said(content: Mapping[str, Any], role: str) -> str:
    if not isinstance(content, dict) or content.get("content_type") not in _READ_TYPES:
        return ""
    parts = content.get("parts")
    if not isinstance(parts, list):
        return ""
    if role == "user" and not all(isinstance(part, str) for part in parts):
        raise NoConversation("shows the model images or sounds, which the export does not hold")
    return "\n".join(part for part in parts if isinstance(part, str)).strip()
