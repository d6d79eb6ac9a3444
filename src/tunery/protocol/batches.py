"""Batches on the wire."""

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from tunery.protocol.base import Request, Response
from tunery.protocol.metadata import Metadata


class OutputExpiresAfter(Request):
    """When the files of a batch are to be removed, from when they were made."""

    anchor: Literal["created_at"]
    seconds: Annotated[StrictInt, Field(ge=3600, le=2592000)]


class CreateBatchRequest(Request):
    """A batch to create."""

    input_file_id: str = Field(min_length=1)
    endpoint: str = Field(min_length=1)
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: OutputExpiresAfter | None = None


class BatchError(Response):
    """One thing that is wrong with a batch."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(Response):
    """What a batch failed with."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchRequestCounts(Response):
    """How far a batch has come."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(Response):
    """Input tokens that were found in a cache."""

    cached_tokens: int = 0


class OutputTokensDetails(Response):
    """Output tokens that were thought and not said."""

    reasoning_tokens: int = 0


class BatchUsage(Response):
    """The tokens of a batch's answers so far."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class Batch(Response):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchRequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
