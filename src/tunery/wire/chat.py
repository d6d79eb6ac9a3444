"""Chat completions: what is asked for, and the answer whole and in chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunery.datasets.heard import Heard, HeardCall
from tunery.datasets.tool_calls import Arguments, CallBegun, Piece, Said
from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import TokenLogprob
from tunery.protocol.chat import CreateChatCompletionRequest
from tunery.protocol.chat_completion import (
    AssistantMessage,
    Called,
    CalledDelta,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionTokenLogprob,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
)
from tunery.protocol.usage import CompletionUsage, PromptTokensDetails
from tunery.wire.messages import check_messages
from tunery.wire.refusals import check_stream_options, refuse_fields
from tunery.wire.tools import check_tools

MAX_TOLD = 128  # log-probabilities of one place in an answer: each is an object in memory
# Fields that cannot be honoured, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "audio": (),
    "moderation": (),
    "prediction": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),  # OpenAI's default
    "web_search_options": (),
}


def check_request(request: CreateChatCompletionRequest) -> None:
    """Raise InvalidRequest that names the first field which cannot be honoured as it stands."""
    check_messages(request.messages)
    check_tools(request)
    refuse_fields(request, REFUSED)
    options = request.stream_options
    check_stream_options(request.stream, None if options is None else options.include_obfuscation)
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise InvalidRequest(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            param="max_tokens",
        )
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest(
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.",
            param="top_logprobs",
        )
    told = (request.n or 1) * (1 + (request.top_logprobs or 0))
    if request.logprobs and told > MAX_TOLD:
        raise InvalidRequest(
            f"Got {request.n or 1} choices with {request.top_logprobs or 0} 'top_logprobs' each; n"
            f" times (1 + top_logprobs) is at most {MAX_TOLD}.",
            param="top_logprobs",
            code="invalid_value",
        )
    if request.metadata and not request.store:
        raise InvalidRequest(
            "The 'metadata' parameter is only allowed when 'store' is enabled.", param="metadata"
        )


def to_wire_usage(
    prompt_tokens: int, completion_tokens: int, cached_tokens: int
) -> CompletionUsage:
    """Return the tokens billed, and how many of the prompt's had been computed before."""
    return CompletionUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
    )


def to_wire_completion(
    *,
    completion_id: str,
    created: int,
    model: str,
    fingerprint: str,
    choices: list[Choice],
    usage: CompletionUsage,
    metadata: dict[str, str] | None,
) -> ChatCompletion:
    """Return a whole answer."""
    return ChatCompletion(
        id=completion_id,
        created=created,
        model=model,
        choices=choices,
        usage=usage,
        metadata=metadata,
        system_fingerprint=fingerprint,
    )


def to_wire_choice(index: int, heard: Heard, *, told: bool, deprecated: bool) -> Choice:
    """Return one choice of a whole answer, with log-probabilities if it is `told` of them.

    `deprecated` is the form in which a call is no tool's.
    """
    calls = [
        ToolCall(id=call.id, function=Called(name=call.name, arguments=call.arguments))
        for call in heard.calls
    ]
    return Choice(
        index=index,
        message=AssistantMessage(
            content=heard.text or None if calls else heard.text,
            tool_calls=None if deprecated else calls or None,
            function_call=calls[0].function if deprecated and calls else None,
        ),
        logprobs=to_wire_logprobs(heard.logprobs) if told else None,
        finish_reason=to_wire_finish_reason(heard, deprecated=deprecated),
    )


def to_wire_finish_reason(heard: Heard, *, deprecated: bool) -> str:
    """Return why an answer ended; one that was cut off within a call was cut off."""
    if heard.calls and heard.finish_reason != "length" and not heard.cut_off:
        return "function_call" if deprecated else "tool_calls"
    return heard.finish_reason or "stop"


def to_wire_logprobs(logprobs: Sequence[TokenLogprob]) -> ChoiceLogprobs:
    """Return how likely each token was. A special token has no bytes: it is no text."""
    return ChoiceLogprobs(
        content=[
            ChatCompletionTokenLogprob(
                token=one.token,
                bytes=list(one.token_bytes) or None,
                logprob=one.logprob,
                top_logprobs=[
                    TopLogprob(token=token, bytes=list(token_bytes) or None, logprob=logprob)
                    for token, token_bytes, logprob in one.top
                ],
            )
            for one in logprobs
        ]
    )


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A chunk of nothing but a choice's text, as nearly all are; `whole` makes an object of it."""

    maker: "ChunkMaker"
    index: int
    text: str

    def whole(self) -> ChatCompletionChunk:
        """Return what is told."""
        return self.maker.said(self.index, self.text)


class ChunkMaker:
    """Makes the chunks of one stream: what they share is said once."""

    def __init__(
        self,
        *,
        completion_id: str,
        created: int,
        model: str,
        fingerprint: str,
        deprecated: bool = False,
    ) -> None:
        self._deprecated = deprecated
        self._shared: dict[str, Any] = {
            "id": completion_id,
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def first(self, index: int, *, may_call: bool = False) -> ChatCompletionChunk:
        """Return the chunk that opens a choice; one that may call has no content until it has."""
        content = None if may_call else ""
        return self._chunk(index, ChoiceDelta(role="assistant", content=content), None)

    def said(
        self, index: int, text: str, logprobs: ChoiceLogprobs | None = None
    ) -> ChatCompletionChunk:
        """Return a chunk of a choice's text."""
        return self._chunk(index, ChoiceDelta(content=text), None, logprobs)

    def pieces(
        self, index: int, heard: Heard, pieces: Sequence[Piece], told: Sequence[TokenLogprob]
    ) -> Iterator[ChatCompletionChunk]:
        """Yield the pieces of a choice: log-probabilities come with the text, or alone."""
        logprobs = to_wire_logprobs(told) if told else None
        for piece in pieces:
            if isinstance(piece, Said):
                yield self.said(index, piece.text, logprobs)
                logprobs = None
            else:
                yield self._chunk(index, self._of_call(heard.calls[piece.index], piece), None)
        if logprobs is not None:
            yield self.said(index, "", logprobs)

    def _of_call(self, call: HeardCall, piece: CallBegun | Arguments) -> ChoiceDelta:
        begun = isinstance(piece, CallBegun)
        called = CalledDelta(
            name=call.name if begun else None,
            arguments="" if isinstance(piece, CallBegun) else piece.text,
        )
        if self._deprecated:
            return ChoiceDelta(function_call=called)
        opened = ToolCallDelta(
            index=piece.index,
            id=call.id if begun else None,
            type="function" if begun else None,
            function=called,
        )
        return ChoiceDelta(tool_calls=[opened])

    def last(self, index: int, finish_reason: str) -> ChatCompletionChunk:
        """Return the chunk that ends a choice."""
        return self._chunk(index, ChoiceDelta(), finish_reason)

    def usage(self, usage: CompletionUsage) -> ChatCompletionChunk:
        """Return the chunk that carries the tokens billed."""
        return ChatCompletionChunk(choices=[], usage=usage, **self._shared)

    def _chunk(
        self,
        index: int,
        delta: ChoiceDelta,
        finish_reason: str | None,
        logprobs: ChoiceLogprobs | None = None,
    ) -> ChatCompletionChunk:
        choice = ChunkChoice(
            index=index, delta=delta, finish_reason=finish_reason, logprobs=logprobs
        )
        return ChatCompletionChunk(choices=[choice], **self._shared)
