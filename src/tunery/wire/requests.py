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
        raise invalid_shape(error) from None


def invalid_shape(error: ValidationError) -> InvalidRequest:
    """Return one line for the first thing that is wrong with a body."""
    return first_error([_at_type(one) for one in error.errors(include_url=False)])


def _at_type(error: ErrorDetails) -> ErrorDetails:
    """Return the error of a value whose `type` is no known one as that of its `type`."""
    given = error["input"]
    if error["type"] in _UNKNOWN_KINDS and isinstance(given, dict) and "type" in given:
        return {**error, "loc": (*error["loc"], "type")}
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
    reasons = [meant["msg"]]
    if meant["type"] in _MISMATCHES:
        reasons = [error["msg"] for error in same if _path(error) == path]
    text = reasons[0] + "".join(" or " + r.removeprefix("Input should be ") for r in reasons[1:])
    return InvalidRequest(
        f"Invalid value for '{param}': {text}.", param=param, code="invalid_value"
    )


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
_MISMATCHES = ("string_type", "int_type", "float_type", "list_type", "dict_type", "literal_error")


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
