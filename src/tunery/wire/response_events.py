"""A streamed response's events, numbered as they are made."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Literal

from tunery.datasets.heard import Heard
from tunery.datasets.tool_calls import CallBegun, Piece, Said
from tunery.domain.ports.engine import TokenLogprob
from tunery.protocol.response_events import (
    ArgumentsDeltaEvent,
    ArgumentsDoneEvent,
    DeltaLikelihood,
    DeltaToken,
    ItemEvent,
    LifeEvent,
    PartEvent,
    ResponseEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from tunery.protocol.responses import (
    OutputFunctionCall,
    OutputMessage,
    OutputTextPart,
    ResponseObject,
)
from tunery.wire.responses import ResponseMaker


class EventMaker:
    """Makes the events of one stream: an item ends when the next one begins, or all does."""

    def __init__(self, items: ResponseMaker, heard: Heard) -> None:
        self._items = items
        self._heard = heard
        self._numbers = count()
        self._begun: list[OutputMessage | OutputFunctionCall] = []

    def opening(self, response: ResponseObject, *, may_call: bool) -> Iterator[ResponseEvent]:
        """Yield what comes before the first piece; a message where there can be nothing else."""
        yield self._life("response.created", response)
        yield self._life("response.in_progress", response)
        if not may_call:
            yield from self._begin_message()

    def pieces(
        self, pieces: Sequence[Piece], told: Sequence[TokenLogprob]
    ) -> Iterator[ResponseEvent]:
        """Yield pieces of the answer as it is heard; log-probabilities come with the text."""
        for piece in pieces:
            if isinstance(piece, Said):
                yield from self._text(piece.text, told)
                told = ()
            elif isinstance(piece, CallBegun):
                if isinstance(self._last, OutputMessage):
                    yield from self._end(self._items.message(self._heard, "completed"))
                elif self._last is not None:
                    call = self._items.call(self._heard, piece.index - 1, "completed")
                    yield from self._end(call)
                yield from self._begin(self._items.call(self._heard, piece.index, "in_progress"))
            else:
                yield ArgumentsDeltaEvent(
                    sequence_number=next(self._numbers), delta=piece.text, **self._place()
                )
        if told:
            yield from self._text("", told)

    def closing(self, response: ResponseObject) -> Iterator[ResponseEvent]:
        """Yield what comes after the last piece."""
        if not self._begun:
            yield from self._begin_message()
        yield from self._end(response.output[-1])
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
        return PartEvent(type=kind, sequence_number=next(self._numbers), part=part, **self._place())

    @property
    def _last(self) -> OutputMessage | OutputFunctionCall | None:
        return self._begun[-1] if self._begun else None

    def _place(self) -> dict[str, Any]:
        """Return where the item that is being written stands."""
        return {"item_id": self._begun[-1].id, "output_index": len(self._begun) - 1}

    def _text(self, text: str, told: Sequence[TokenLogprob]) -> Iterator[ResponseEvent]:
        if not self._begun:
            yield from self._begin_message()
        yield TextDeltaEvent(
            sequence_number=next(self._numbers),
            delta=text,
            logprobs=_likelihoods(told),
            **self._place(),
        )

    def _begin_message(self) -> Iterator[ResponseEvent]:
        yield from self._begin(self._items.message(self._heard, "in_progress"))
        yield self._part("response.content_part.added", OutputTextPart(text=""))

    def _begin(self, item: OutputMessage | OutputFunctionCall) -> Iterator[ResponseEvent]:
        self._begun.append(item)
        yield self._item("response.output_item.added", item)

    def _end(self, item: OutputMessage | OutputFunctionCall) -> Iterator[ResponseEvent]:
        """Yield the end of the item that is being written, as it has become."""
        if isinstance(item, OutputMessage):
            (part,) = item.content
            yield TextDoneEvent(
                sequence_number=next(self._numbers),
                text=part.text,
                logprobs=_likelihoods(self._heard.logprobs),
                **self._place(),
            )
            yield self._part("response.content_part.done", part)
        else:
            yield ArgumentsDoneEvent(
                sequence_number=next(self._numbers),
                name=item.name,
                arguments=item.arguments,
                **self._place(),
            )
        yield self._item("response.output_item.done", item)

    def _item(
        self,
        kind: Literal["response.output_item.added", "response.output_item.done"],
        item: OutputMessage | OutputFunctionCall,
    ) -> ResponseEvent:
        return ItemEvent(
            type=kind,
            sequence_number=next(self._numbers),
            output_index=len(self._begun) - 1,
            item=item,
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
