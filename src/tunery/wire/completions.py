"""Legacy completions: what is asked for, and the answer whole and in pieces."""

from collections.abc import Sequence
from typing import Any

from tunery.domain.errors import InvalidRequest
from tunery.domain.ports.engine import TokenLogprob
from tunery.protocol.completions import CompletionLogprobs, CreateCompletionRequest
from tunery.wire.refusals import check_stream_options, refuse_fields

MAX_CHOICES = 1024
MAX_ECHOED = 32  # prompts of 8,192 tokens that are told token by token take 3 MB each
# Fields that cannot be honoured, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {"suffix": ("",)}


def check_request(request: CreateCompletionRequest) -> None:
    """Raise InvalidRequest that names the first field which cannot be honoured as it stands."""
    refuse_fields(request, REFUSED)
    options = request.stream_options
    check_stream_options(request.stream, None if options is None else options.include_obfuscation)
    best_of = request.best_of
    if best_of is not None and best_of < (request.n or 1):
        raise InvalidRequest(
            f"Invalid value for 'best_of': {best_of}; it needs to be at least n"
            f" ({request.n or 1}).",
            param="best_of",
            code="invalid_value",
        )
    if best_of is not None and best_of > (request.n or 1) and request.stream:
        raise InvalidRequest(
            "Invalid value for 'best_of': the best answers are known only at the end and cannot be"
            " streamed.",
            param="best_of",
            code="invalid_value",
        )
    choices = len(from_wire_prompts(request.prompt)) * (best_of or request.n or 1)
    most = MAX_ECHOED if request.echo and request.logprobs is not None else MAX_CHOICES
    if choices > most:
        raise InvalidRequest(
            f"Got {choices} answers to make of one request; at most {most} are made of one like"
            " this. Send fewer prompts, or a smaller 'n' or 'best_of'.",
            param="n",
            code="invalid_value",
        )
    if request.max_tokens == 0 and not request.echo:
        raise InvalidRequest(
            "Invalid value for 'max_tokens': 0 asks for nothing unless 'echo' is true.",
            param="max_tokens",
            code="invalid_value",
        )


def from_wire_prompts(
    prompt: str | list[str] | list[int] | list[list[int]] | None,
) -> list[str | list[int]]:
    """Return the texts or token ids to go on from; without a prompt, an empty text."""
    if prompt is None:
        return [""]
    if isinstance(prompt, str):
        return [prompt]
    ids = [one for one in prompt if isinstance(one, int)]
    return [ids] if ids else [one for one in prompt if not isinstance(one, int)]


def to_wire_logprobs(
    told: Sequence[TokenLogprob], *, starts: bool, first_offset: int
) -> CompletionLogprobs:
    """Return how likely tokens were; offsets count characters of the choice's text.

    `starts` says that the first token has nothing before it, and so no probability. The token
    itself is always among the likeliest: one more, where it is not one of those asked for.
    """
    offsets, offset = [], first_offset
    for one in told:
        offsets.append(offset)
        offset += len(one.token)
    nothing_before = [starts and place == 0 for place in range(len(told))]
    return CompletionLogprobs(
        text_offset=offsets,
        tokens=[one.token for one in told],
        token_logprobs=[
            None if first else one.logprob for one, first in zip(told, nothing_before, strict=True)
        ],
        top_logprobs=[
            None
            if first
            else {token: logprob for token, _, logprob in one.top} | {one.token: one.logprob}
            for one, first in zip(told, nothing_before, strict=True)
        ],
    )
