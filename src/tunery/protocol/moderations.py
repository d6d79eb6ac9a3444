"""Moderations on the wire."""

from typing import Annotated, Literal

from pydantic import Field

from tunery.protocol.base import Request, Response

MAX_INPUTS = 1024


class ModerationText(Request):
    """A text to judge."""

    type: Literal["text"]
    text: str


class ModerationImageUrl(Request):
    """An image by its address, or as a data URL."""

    url: str = Field(min_length=1)


class ModerationImage(Request):
    """An image to judge."""

    type: Literal["image_url"]
    image_url: ModerationImageUrl


class CreateModerationRequest(Request):
    """Content to judge: each string by itself, parts of text and images together."""

    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
        | Annotated[
            list[ModerationText | ModerationImage],
            Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True),
        ]
    )
    model: str | None = None


class ModerationDetails(Response):
    """An addition of ours: whether anything judged this content."""

    judged: bool


class Moderation(Response):
    """The verdict on one input. A category without applied input types was not judged."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text", "image"]]]
    tunery: ModerationDetails


class ModerationCreateResponse(Response):
    """A verdict for each input."""

    id: str
    model: str
    results: list[Moderation]
