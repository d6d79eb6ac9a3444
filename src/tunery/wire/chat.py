"""Chat completions."""

from typing import Any

from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import Delta
from tunery.protocol.chat import (
    NEUTRAL_VALUES,
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    CompletionUsage,
    CreateChatCompletionRequest,
)


def refuse_unsupported(request: CreateChatCompletionRequest) -> None:
    """Raise InvalidRequest that names the first field which asks for what is not there yet."""
    for number, message in enumerate(request.messages):
        for name, field in ChatMessage.model_fields.items():
            if field.annotation is Any and getattr(message, name) not in (None, []):
                raise InvalidRequest(
                    f"Unsupported parameter: 'messages.{number}.{name}' is not supported by this"
                    " server yet. Leave it out.",
                    param=f"messages.{number}.{name}",
                    code="unsupported_parameter",
                )
    for name, field in CreateChatCompletionRequest.model_fields.items():
        value = getattr(request, name)
        if field.annotation is Any and value is not None:
            neutral = NEUTRAL_VALUES.get(name, ())
            if not any(type(value) is type(n) and value == n for n in neutral) and not (
                type(value) is float
                and value == 0
                and any(type(n) is int and n == 0 for n in neutral)
            ):
                raise InvalidRequest(
                    f"Unsupported parameter: '{name}' is not supported by this server yet."
                    " Leave it out.",
                    param=name,
                    code="unsupported_parameter",
                )
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        raise InvalidRequest(
            "Unsupported parameter: 'stream_options.include_obfuscation' cannot be turned on.",
            param="stream_options.include_obfuscation",
            code="unsupported_parameter",
        )
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise InvalidRequest(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            param="max_tokens",
        )


def from_wire_messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """Return the conversation as it is rendered."""
    return [message.model_dump(include={"role", "content"}) for message in messages]


def from_wire_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    """Return the stop strings."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def to_wire_usage(prompt_tokens: int, completion_tokens: int) -> CompletionUsage:
    """Return the tokens billed."""
    return CompletionUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


def to_wire_completion(
    *,
    completion_id: str,
    created: int,
    model: str,
    fingerprint: str,
    text: str,
    last: Delta,
    prompt_tokens: int,
) -> ChatCompletion:
    """Return a whole answer."""
    return ChatCompletion(
        id=completion_id,
        created=created,
        model=model,
        choices=[
            Choice(
                message=AssistantMessage(content=text), finish_reason=last.finish_reason or "stop"
            )
        ],
        usage=to_wire_usage(prompt_tokens, last.completion_tokens),
        system_fingerprint=fingerprint,
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

    def first(self) -> ChatCompletionChunk:
        """Return the chunk that opens the answer."""
        return self._chunk(ChoiceDelta(role="assistant", content=""), None)

    def text(self, text: str) -> ChatCompletionChunk:
        """Return a piece of the answer."""
        return self._chunk(ChoiceDelta(content=text), None)

    def last(self, finish_reason: str) -> ChatCompletionChunk:
        """Return the chunk that ends the answer."""
        return self._chunk(ChoiceDelta(), finish_reason)

    def usage(self, usage: CompletionUsage) -> ChatCompletionChunk:
        """Return the chunk that carries the tokens billed."""
        return ChatCompletionChunk(choices=[], usage=usage, **self._shared)

    def _chunk(self, delta: ChoiceDelta, finish_reason: str | None) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            choices=[ChunkChoice(delta=delta, finish_reason=finish_reason)], **self._shared
        )
