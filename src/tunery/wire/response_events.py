"""A streamed response's events, numbered as they are made."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Literal

from tunery.domain.ports.engine import Delta, TokenLogprob
from tunery.protocol.response_events import (
    DeltaLikelihood,
    DeltaToken,
    ItemEvent,
    LifeEvent,
    PartEvent,
    ResponseEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from tunery.protocol.responses import OutputMessage, OutputTextPart, ResponseObject


class EventMaker:
    """Makes the events of one stream."""

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._numbers = count()

    def opening(self, response: ResponseObject) -> Iterator[ResponseEvent]:
        """Yield what comes before the first piece of text."""
        yield self._life("response.created", response)
        yield self._life("response.in_progress", response)
        message = OutputMessage(id=self._message_id, status="in_progress", content=[])
        yield ItemEvent(
            type="response.output_item.added", sequence_number=next(self._numbers), item=message
        )
        yield self._part("response.content_part.added", OutputTextPart(text=""))

    def delta(self, delta: Delta) -> ResponseEvent:
        """Return a piece of the text."""
        return TextDeltaEvent(
            sequence_number=next(self._numbers),
            item_id=self._message_id,
            delta=delta.text,
            logprobs=_likelihoods(delta.logprobs),
        )

    def closing(
        self, response: ResponseObject, logprobs: Sequence[TokenLogprob]
    ) -> Iterator[ResponseEvent]:
        """Yield what comes after the last piece of text."""
        (message,) = response.output
        (part,) = message.content
        yield TextDoneEvent(
            sequence_number=next(self._numbers),
            item_id=self._message_id,
            text=part.text,
            logprobs=_likelihoods(logprobs),
        )
        yield self._part("response.content_part.done", part)
        yield ItemEvent(
            type="response.output_item.done", sequence_number=next(self._numbers), item=message
        )
        done = response.status == "completed"
        yield self._life("response.completed" if done else "response.incomplete", response)

    def failed(self, response: ResponseObject) -> ResponseEvent:
        """Return what ends a stream that could not go on."""
        return self._life("response.failed", response)

    def _life(
        self,
        kind: Literal[
            "response.created",
            "response.in_progress",
            "response.completed",
            "response.incomplete",
            "response.failed",
        ],
        response: ResponseObject,
    ) -> ResponseEvent:
        return LifeEvent(type=kind, sequence_number=next(self._numbers), response=response)

    def _part(
        self,
        kind: Literal["response.content_part.added", "response.content_part.done"],
        part: OutputTextPart,
    ) -> ResponseEvent:
        return PartEvent(
            type=kind, sequence_number=next(self._numbers), item_id=self._message_id, part=part
        )


def _likelihoods(logprobs: Sequence[TokenLogprob]) -> list[DeltaLikelihood]:
    return [
        DeltaLikelihood(
            token=one.token,
            logprob=one.logprob,
            top_logprobs=[
                DeltaToken(token=token, logprob=logprob) for token, _, logprob in one.top
            ],
        )
        for one in logprobs
    ]
