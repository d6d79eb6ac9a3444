"""A grammar that the engine gave up on in an answer, told as the field that it came from."""

from tunery.datasets.grammars import UNFOLLOWED
from tunery.datasets.tools import Calling, Function
from tunery.domain.errors import InvalidRequest
from tunery.protocol.response_tools import FlatJsonSchema
from tunery.protocol.tools import JsonSchemaResponse, ResponseFormat
from tunery.wire.formats import TextFormat

_ADVICE = "Simplify it: fewer and shorter repetitions in its patterns and bounds."


def grammar_fault(
    error: InvalidRequest,
    wanted: ResponseFormat | TextFormat | None,
    calling: Calling | None,
    called: str | None,
) -> InvalidRequest:
    """Return the error of the schema that an answer could not follow to its end.

    `called` is the function whose call the answer was in, if it was in one. Else it is the form
    that was asked for, or the arguments of functions, all of them where it may be any.
    """
    followed: list[Function] = []
    if calling is not None:
        followed = [one for one in calling.callable() if calling.follows_schema(one)]
    at_fault = [one for one in followed if one.name == called] or followed
    has_to_call = calling is not None and calling.choice == "required"
    code = "invalid_json_schema"
    if called or has_to_call or not isinstance(wanted, JsonSchemaResponse | FlatJsonSchema):
        if not at_fault:
            return error
        param, code = at_fault[0].param, "invalid_function_parameters"
        what = f"function '{at_fault[0].name}'"
        if len(at_fault) > 1:
            param = param.partition(".")[0]
            what = f"one of the functions {', '.join(repr(one.name) for one in at_fault):.200}"
    elif isinstance(wanted, JsonSchemaResponse):
        what, param = f"response_format '{wanted.json_schema.name}'", "response_format"
    else:
        what, param = f"text.format '{wanted.name}'", "text.format.schema"
    reason = error.message.removeprefix(UNFOLLOWED)
    return InvalidRequest(
        f"Invalid schema for {what}: it is too complex to be followed to the answer's end"
        f" ({reason}). {_ADVICE}",
        param=param,
        code=code,
    )
