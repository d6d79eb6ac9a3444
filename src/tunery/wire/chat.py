"""Chat completions: what is asked for, and the answer whole and in chunks."""

from collections.abc import Sequence
from typing import Any

from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import Delta, TokenLogprob
from tunery.protocol.chat import CreateChatCompletionRequest
from tunery.protocol.chat_completion import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionTokenLogprob,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    TopLogprob,
)
from tunery.protocol.usage import CompletionUsage, PromptTokensDetails
from tunery.wire.messages import check_messages
from tunery.wire.refusals import check_stream_options, refuse_fields

MAX_TOLD = 128  # log-probabilities of one place in an answer: each is an object in memory
# Fields that cannot be honoured, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "audio": (),
    "moderation": (),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),  # OpenAI's default
    "web_search_options": (),
}


def check_request(request: CreateChatCompletionRequest) -> None:
    """Raise InvalidRequest that names the first field which cannot be honoured as it stands."""
    check_messages(request.messages)
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


def to_wire_choice(
    index: int, text: str, logprobs: Sequence[TokenLogprob] | None, finish_reason: str | None
) -> Choice:
    """Return one choice of a whole answer."""
    return Choice(
        index=index,
        message=AssistantMessage(content=text),
        logprobs=None if logprobs is None else to_wire_logprobs(logprobs),
        finish_reason=finish_reason or "stop",
    )


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


class ChunkMaker:
    """Makes the chunks of one stream: what they share is said once."""

    def __init__(self, *, completion_id: str, created: int, model: str, fingerprint: str) -> None:
        self._shared: dict[str, Any] = {
            "id": completion_id,
            "created": created,
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def first(self, index: int) -> ChatCompletionChunk:
        """Return the chunk that opens a choice."""
        return self._chunk(index, ChoiceDelta(role="assistant", content=""), None)

    def text(self, index: int, delta: Delta) -> ChatCompletionChunk:
        """Return a piece of a choice."""
        logprobs = to_wire_logprobs(delta.logprobs) if delta.logprobs else None
        return self._chunk(index, ChoiceDelta(content=delta.text), None, logprobs)

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
