"""The events of a streamed response, each numbered."""

from typing import Literal

from pydantic import Field

from tunery.protocol.base import Response
from tunery.protocol.responses import (
    OutputFunctionCall,
    OutputMessage,
    OutputTextPart,
    ResponseObject,
)


class ResponseEvent(Response):
    """What every event has."""

    type: str
    sequence_number: int


class LifeEvent(ResponseEvent):
    """The response as a whole has come this far."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseObject


class ItemEvent(ResponseEvent):
    """An item of the output begins or ends."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int = 0
    item: OutputMessage | OutputFunctionCall


class PartEvent(ResponseEvent):
    """A part of an item begins or ends."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: OutputTextPart


class DeltaToken(Response):
    """A token that might have stood here, and its natural log-probability."""

    token: str
    logprob: float


class DeltaLikelihood(DeltaToken):
    """A token of the piece, and the likeliest ones in its place."""

    top_logprobs: list[DeltaToken]


class TextDeltaEvent(ResponseEvent):
    """A piece of the text."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str
    logprobs: list[DeltaLikelihood] = Field(default_factory=list)


class TextDoneEvent(ResponseEvent):
    """The text is whole."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    item_id: str
    output_index: int = 0
    content_index: int = 0
    text: str
    logprobs: list[DeltaLikelihood] = Field(default_factory=list)


class ArgumentsDeltaEvent(ResponseEvent):
    """A piece of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"] = (
        "response.function_call_arguments.delta"
    )
    item_id: str
    output_index: int
    delta: str


class ArgumentsDoneEvent(ResponseEvent):
    """A call's arguments are whole."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    item_id: str
    output_index: int
    name: str
    arguments: str
