"""What is well-formed but cannot be honoured: refused by its name, never passed over."""

from collections.abc import Mapping
from typing import Any

from tunery.domain.errors import Conflict, InvalidRequest
from tunery.domain.once import AlreadyDone
from tunery.protocol.base import Request


def unsupported(name: str, advice: str = "Leave it out.") -> InvalidRequest:
    """Return the error for a field that asks for what this server cannot do."""
    return InvalidRequest(
        f"Unsupported parameter: '{name}' is not supported by this server. {advice}",
        param=name,
        code="unsupported_parameter",
    )


def refuse_fields(request: Request, neutral: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse the first field of `neutral` that asks for something.

    `neutral` holds, for each field that cannot be honoured, the values that ask for nothing;
    null and a missing field always do.
    """
    for name, values in neutral.items():
        if name not in request.model_fields_set:
            continue
        value = getattr(request, name)
        plain = value.model_dump(exclude_unset=True) if isinstance(value, Request) else value
        if plain is not None and not any(plain == one for one in values):
            raise unsupported(name)


def check_stream_options(stream: bool | None, include_obfuscation: bool | None) -> None:
    """Refuse stream options without a stream; `include_obfuscation` is None without options."""
    if include_obfuscation is not None and not stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    if include_obfuscation:
        raise unsupported("stream_options.include_obfuscation")


def answered_before(done: AlreadyDone) -> Conflict:
    """Return the error for a stream that is asked for again: it is not sent twice."""
    return Conflict(
        "The request under this Idempotency-Key is answered, and the answer kept as"
        f" {done.object_id}: fetch it by its id.",
        param="Idempotency-Key",
        code="idempotency_key_reused",
    )
