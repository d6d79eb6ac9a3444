"""Stored chat completions on the wire: the answer, and what it was asked with."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tunery.protocol.base import Request, Response
from tunery.protocol.chat_completion import ChatCompletion
from tunery.protocol.metadata import Metadata


class StoredChatCompletion(ChatCompletion):
    """A completion as it is fetched."""

    metadata: dict[str, str] = Field(default_factory=dict)
    request_id: str
    input_user: str | None
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    tools: Any = None
    tool_choice: Any = None
    response_format: Any = None


class StoredMessage(Response):
    """A message that a stored completion answers."""

    id: str
    role: str
    content: str | None
    content_parts: list[dict[str, Any]] | None
    name: str | None
    refusal: str | None
    tool_calls: list[dict[str, Any]] | None
    function_call: dict[str, Any] | None
    tool_call_id: str | None

    @model_serializer(mode="wrap")
    def _without_tools(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields; those of tools are there only where there is something in them."""
        fields: dict[str, Any] = whole(self)
        tools = ("tool_calls", "function_call", "tool_call_id")
        return {k: v for k, v in fields.items() if v is not None or k not in tools}


class UpdateChatCompletionRequest(Request):
    """What can be changed of a stored completion."""

    metadata: Metadata | None


class ChatCompletionDeleted(Response):
    """A stored completion that is gone."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: bool = True
