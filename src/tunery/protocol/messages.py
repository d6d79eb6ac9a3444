"""The messages of a conversation, as clients send them."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tunery.protocol.base import Request
from tunery.protocol.tools import ToolName


class TextPart(Request):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(Request):
    """A piece of an answer that refused."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Request):
    """An image by its address."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Request):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class AudioData(Request):
    """Sound as base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Request):
    """A piece of sound."""

    type: Literal["input_audio"]
    input_audio: AudioData


class FileData(Request):
    """A file by id, or whole."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class FilePart(Request):
    """A file."""

    type: Literal["file"]
    file: FileData


ContentPart = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class CalledFunction(Request):
    """A function's name and its arguments as JSON text."""

    name: ToolName
    arguments: str


class FunctionCall(Request):
    """A call of a function tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class CalledCustom(Request):
    """A custom tool's name and its input."""

    name: ToolName
    input: str


class CustomCall(Request):
    """A call of a custom tool."""

    id: str
    type: Literal["custom"]
    custom: CalledCustom


class SpokenAnswer(Request):
    """An earlier answer in sound, by its id."""

    id: str


class ChatMessage(Request):
    """A message. An answer of ours that is sent back as it came is one too."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[ContentPart], Field(min_length=1, fail_fast=True)] | None = None
    name: Annotated[str, Field(pattern=r"^[^\s<|\\/>]{1,64}$")] | None = None
    refusal: str | None = None
    audio: SpokenAnswer | None = None
    function_call: CalledFunction | None = None
    tool_calls: Annotated[list[FunctionCall | CustomCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    annotations: list[Any] | None = None
    parsed: Any = None  # what the SDK adds to an answer that it parsed: `content` again
