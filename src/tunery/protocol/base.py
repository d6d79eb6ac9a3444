"""What every wire type shares."""

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")


class Request(BaseModel):
    """A request body: an unknown field is refused by name, never passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Response(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True)


class ListPage(Response, Generic[Item]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class WholeList(Response, Generic[Item]):
    """A list that is never paged."""

    object: Literal["list"] = "list"
    data: list[Item]


class ErrorBody(Response):
    """What went wrong: all four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(Response):
    """The error envelope."""

    error: ErrorBody
