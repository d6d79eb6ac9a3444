"""Values to wire types: a body that does not fit is refused with one line that names the field."""

import itertools
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tunery.domain.errors import InvalidRequest
from tunery.protocol.base import Request

Wire = TypeVar("Wire", bound=Request)


def from_wire_value(value: Any, wire: type[Wire]) -> Wire:
    """Return `value` as a wire type; raise InvalidRequest that names what is wrong with it."""
    if not isinstance(value, dict):
        raise InvalidRequest("The body of your request needs to be a JSON object.")
    try:
        return wire.model_validate(value)
    except ValidationError as error:
        raise invalid_shape(_of_range(value, wire, error)) from None


def _of_range(value: dict[str, Any], wire: type[Wire], error: ValidationError) -> ValidationError:
    """Return the error of a body whose huge integers are out of range, rather than no integers.

    What has more than 64 bits was read as a float.
    """
    if any(one["type"] == "int_type" and _is_huge(one["input"]) for one in error.errors()):
        try:
            wire.model_validate(_with_integers(value))
        except ValidationError as same:
            return same
    return error


def _is_huge(value: Any) -> bool:
    return isinstance(value, float) and abs(value) >= 2**63 and value.is_integer()


def _with_integers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_integers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_integers(one) for one in value]
    return int(value) if _is_huge(value) else value


def invalid_shape(error: ValidationError) -> InvalidRequest:
    """Return one line for the first thing that is wrong with a body."""
    return first_error([_at_type(one) for one in error.errors(include_url=False)])


def _at_type(error: ErrorDetails) -> ErrorDetails:
    """Return the error of a value whose `type` is no known one as that of its `type`."""
    given = error["input"]
    if error["type"] in _UNKNOWN_KINDS and isinstance(given, dict) and "type" in given:
        return {**error, "loc": (*error["loc"], "type"), "input": given["type"]}
    return error


def first_error(errors: list[ErrorDetails]) -> InvalidRequest:
    """Return the error for the first field at fault, in the words of the alternative meant.

    A field of several types fails once for each: the one that came furthest, or broke a rule
    rather than a type, is what the caller meant.
    """
    top = _path_to_union(errors[0])
    same = [error for error in errors if _path(error)[: len(top)] == top]
    same = _of_the_type_given(same)

    def nearness(error: ErrorDetails) -> tuple[int, int]:
        depth = len(_path(error))
        if error["type"] == "literal_error" and depth > len(top):  # the `type` of a part
            return depth, 2
        if error["type"] == "too_long":  # all its items were right, as far as they were looked at
            return depth + 1, 1
        return depth, int(error["type"] not in _MISMATCHES)

    meant = max(same, key=nearness)
    path = _path(meant)
    param = ".".join(path) or None
    if meant["type"] == "extra_forbidden":
        return InvalidRequest(
            f"Unrecognized request argument supplied: {param}",
            param=param,
            code="unknown_parameter",
        )
    if meant["type"] == "missing":
        return InvalidRequest(
            f"Missing required parameter: '{param}'.",
            param=param,
            code="missing_required_parameter",
        )
    reasons = [_reason(meant)]
    if meant["type"] in _MISMATCHES:
        reasons = [_reason(error) for error in same if _path(error) == path]
    first, *others = dict.fromkeys(reasons)
    text = first + "".join(" or " + r.removeprefix("Input should be ") for r in others)
    if meant["type"] not in _SAY_WHAT_WAS_GOT:
        text += f", got {_shown(meant['input'])}"
    return InvalidRequest(
        f"Invalid value for '{param}': {text}.", param=param, code="invalid_value"
    )


def _reason(error: ErrorDetails) -> str:
    """Return pydantic's words, without what they say of Python."""
    if error["type"] in _IN_JSON:
        return f"Input should be {_IN_JSON[error['type']]}"
    return error["msg"].removeprefix("Value error, ").replace(" after validation", "")


def _shown(value: Any) -> str:
    """Return what was got, in few words."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case int() | float():
            return f"{value:g}" if abs(value) >= 2**64 else str(value)
        case str():
            return repr(value) if len(value) <= 40 else f"a string of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
    return "an object"


def _of_the_type_given(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Return the errors without those of alternatives whose `type` was not given.

    Where it is the `type` of none, that is what is wrong.
    """
    of_types = [
        error for error in errors if error["type"] == "literal_error" and error["loc"][-1] == "type"
    ]
    others = [error["loc"][:-1] for error in of_types]
    rest = [e for e in errors if not any(e["loc"][: len(other)] == other for other in others)]
    depth = max((len(_path(error)) for error in of_types), default=0)
    return rest if any(len(_path(error)) >= depth for error in rest) else of_types or errors


_UNKNOWN_KINDS = ("unknown_item", "unknown_part", "unknown_tool", "part_type", "grader_type")
_SAY_WHAT_WAS_GOT = ("too_long", "too_short", "value_error")
_IN_JSON = {"model_type": "an object", "dict_type": "an object", "list_type": "an array"}
_MISMATCHES = ("string_type", "int_type", "float_type", "literal_error", *_IN_JSON)


def _is_field(part: str | int) -> bool:
    """Return whether a step to an error is a field or an index: alternatives are named by type."""
    if isinstance(part, int):
        return True
    return not any(sign in part for sign in "[]()-") and part[:1].islower()


def _path_to_union(error: ErrorDetails) -> list[str]:
    """Return the fields that lead to the first place where alternatives part."""
    steps = list(itertools.takewhile(_is_field, error["loc"]))
    return _path({**error, "loc": tuple(steps)})


def _path(error: ErrorDetails) -> list[str]:
    """Return the fields that lead to an error."""
    named = [str(part) for part in error["loc"] if _is_field(part)]
    return [part for part in named if part not in ("body", "query", "path", "str", "int", "float")]
