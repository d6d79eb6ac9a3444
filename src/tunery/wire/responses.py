"""Responses: what is asked for, and the object that is answered."""

from collections.abc import Sequence
from typing import Any

from tunery.datasets.heard import Heard
from tunery.datasets.tools import arguments_object
from tunery.domain.errors import InvalidRequest
from tunery.domain.ids import new_id
from tunery.domain.ports.engine import TokenLogprob
from tunery.domain.responses import StoredResponse
from tunery.protocol.base import Request
from tunery.protocol.response_items import ItemStatus
from tunery.protocol.response_request import (
    LOGPROBS,
    CountInputTokensRequest,
    CreateResponseRequest,
)
from tunery.protocol.response_tools import FlatToolChoice
from tunery.protocol.responses import (
    IncompleteDetails,
    InputTokensDetails,
    LikelyToken,
    OutputFunctionCall,
    OutputMessage,
    OutputTextPart,
    ResponseError,
    ResponseObject,
    ResponseUsage,
    TokenLikelihood,
)
from tunery.services.answers import Options
from tunery.wire.formats import to_wire_text_format
from tunery.wire.refusals import check_stream_options, refuse_fields, unsupported
from tunery.wire.response_items import check_input
from tunery.wire.response_tools import from_flat_calling, to_wire_tool

# Fields that cannot be honoured, with the values that ask for nothing.
REFUSED_IN_INPUT: dict[str, tuple[Any, ...]] = {"conversation": ()}
REFUSED_IN_COUNT: dict[str, tuple[Any, ...]] = {
    "personality": (),
    "truncation": ("disabled",),  # what is counted is the whole input
}
REFUSED: dict[str, tuple[Any, ...]] = REFUSED_IN_INPUT | {
    "max_tool_calls": (),
    "service_tier": ("auto", "default"),
    "background": (False,),
    "background_options": (),
    "prompt": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "moderation": (),
    "context_management": (),
    "access_programs": (),
    "image": (),
}


def check_request(request: CreateResponseRequest) -> None:
    """Raise InvalidRequest that names the first field which cannot be honoured as it stands."""
    _check_asked(request)
    refuse_fields(request, REFUSED)
    options = request.stream_options
    obfuscation = None if options is None else bool(options.include_obfuscation)
    check_stream_options(request.stream, obfuscation)
    for name in request.include or ():
        if name != LOGPROBS:
            raise unsupported("include", f"Only '{LOGPROBS}' can be included, not '{name}'.")
    if request.top_logprobs and not request.include:
        raise InvalidRequest(
            f"The 'top_logprobs' parameter is only allowed when 'include' has '{LOGPROBS}'.",
            param="top_logprobs",
        )


def check_count(request: CountInputTokensRequest) -> str:
    """Return the model to count for; raise InvalidRequest as `check_request` does."""
    _check_asked(request)
    refuse_fields(request, REFUSED_IN_INPUT | REFUSED_IN_COUNT)
    if request.model is None:
        raise _missing("model")
    return request.model


def _check_asked(request: CreateResponseRequest | CountInputTokensRequest) -> None:
    if not request.input and request.input != "" and request.previous_response_id is None:
        raise _missing("input")
    check_input(request.input)
    from_flat_calling(request)
    if request.text is not None and request.text.verbosity not in (None, "medium"):
        raise unsupported("text.verbosity", "Leave it out, or use 'medium'.")
    if request.reasoning is not None:
        for name, value in request.reasoning:
            if value is not None:
                raise unsupported(f"reasoning.{name}")


def _missing(name: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def from_wire_response_options(request: CreateResponseRequest) -> Options:
    """Return how the answer is to be made."""
    return Options(
        max_tokens=request.max_output_tokens,
        temperature=1.0 if request.temperature is None else float(request.temperature),
        top_p=1.0 if request.top_p is None else float(request.top_p),
        top_logprobs=(request.top_logprobs or 0) if request.include else None,
    )


class ResponseMaker:
    """Makes the object of one response, as far as it has come."""

    def __init__(
        self,
        request: CreateResponseRequest,
        *,
        response_id: str,
        message_id: str,
        created_at: int,
        fingerprint: str,
    ) -> None:
        self._message_id = message_id
        self._call_ids: list[str] = []
        self._shared: dict[str, Any] = {
            "id": response_id,
            "created_at": created_at,
            "model": request.model,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "prompt_cache_key": request.prompt_cache_key,
            "safety_identifier": request.safety_identifier,
            "store": request.store is not False,
            "system_fingerprint": fingerprint,
            "text": {
                "format": to_wire_text_format(
                    None if request.text is None else request.text.format
                ),
                "verbosity": "medium",
            },
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "tool_choice": _plain(request.tool_choice) or "auto",
            "tools": [to_wire_tool(tool) for tool in request.tools or ()],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": request.truncation or "disabled",
            "user": request.user,
            "metadata": request.metadata or {},
        }

    def begun(self) -> ResponseObject:
        """Return the response before there is anything of the answer."""
        return ResponseObject(status="in_progress", output=[], **self._shared)

    def failed(self, message: str) -> ResponseObject:
        """Return the response of which nothing came."""
        error = ResponseError(code="server_error", message=message)
        return ResponseObject(status="failed", error=error, output=[], **self._shared)

    def message(self, heard: Heard, status: ItemStatus) -> OutputMessage:
        """Return the text of an answer."""
        part = OutputTextPart(text=heard.text, logprobs=to_wire_likelihoods(heard.logprobs))
        return OutputMessage(
            id=self._message_id,
            status=status,
            content=[] if status == "in_progress" else [part],
        )

    def call(self, heard: Heard, index: int, status: ItemStatus) -> OutputFunctionCall:
        """Return one of an answer's calls."""
        while len(self._call_ids) <= index:
            self._call_ids.append(new_id("fc_"))
        call = heard.calls[index]
        return OutputFunctionCall(
            id=self._call_ids[index],
            status=status,
            call_id=call.id,
            name=call.name,
            arguments="" if status == "in_progress" else call.arguments,
        )

    def ended(
        self,
        heard: Heard,
        *,
        prompt_tokens: int,
        cached_tokens: int,
        completion_tokens: int,
        ended_at: int,
    ) -> ResponseObject:
        """Return the response with its answer: text, where there is any or no call, and calls."""
        cut_off = heard.finish_reason == "length"
        output: list[OutputMessage | OutputFunctionCall] = []
        if heard.text or not heard.calls:
            whole = bool(heard.calls) or not cut_off
            output.append(self.message(heard, "completed" if whole else "incomplete"))
        for index, call in enumerate(heard.calls):
            whole = not cut_off or arguments_object(call.arguments) is not None
            output.append(self.call(heard, index, "completed" if whole else "incomplete"))
        return ResponseObject(
            status="incomplete" if cut_off else "completed",
            completed_at=None if cut_off else ended_at,
            incomplete_details=IncompleteDetails(reason="max_output_tokens") if cut_off else None,
            output=output,
            usage=ResponseUsage(
                input_tokens=prompt_tokens,
                input_tokens_details=InputTokensDetails(cached_tokens=cached_tokens),
                output_tokens=completion_tokens,
                total_tokens=prompt_tokens + completion_tokens,
            ),
            **self._shared,
        )


def _plain(choice: FlatToolChoice | None) -> str | dict[str, Any] | None:
    return choice.model_dump(exclude_unset=True) if isinstance(choice, Request) else choice


def to_wire_likelihoods(logprobs: Sequence[TokenLogprob]) -> list[TokenLikelihood]:
    """Return how likely each token was."""
    return [
        TokenLikelihood(
            token=one.token,
            bytes=list(one.token_bytes),
            logprob=one.logprob,
            top_logprobs=[
                LikelyToken(token=token, bytes=list(token_bytes), logprob=logprob)
                for token, token_bytes, logprob in one.top
            ],
        )
        for one in logprobs
    ]


def to_wire_response(stored: StoredResponse) -> ResponseObject:
    """Return a stored response as it was answered."""
    return ResponseObject.model_validate(stored.response)
