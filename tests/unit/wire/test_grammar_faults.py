"""A grammar that was given up on is told as the field that it came from."""

from typing import Any

import pytest

from tunery.datasets.grammars import refusal
from tunery.datasets.tools import Calling, Function
from tunery.protocol.response_tools import FlatJsonSchema
from tunery.protocol.tools import JsonObjectResponse, JsonSchemaResponse
from tunery.wire.grammar_faults import grammar_fault

ERROR = refusal("too many states")
BODY = {"name": "form", "schema": {"type": "object"}}
CHAT = JsonSchemaResponse.model_validate({"type": "json_schema", "json_schema": BODY})
FLAT = FlatJsonSchema.model_validate({"type": "json_schema", **BODY})
F, G, FREE = (
    Function(name, strict=name != "free", param=f"tools.{number}.parameters")
    for number, name in enumerate(("f", "g", "free"))
)


def calling(*functions: Function, choice: Any = "auto") -> Calling:
    return Calling(functions, tuple(one.name for one in functions), choice)


@pytest.mark.parametrize(
    ("wanted", "told", "called", "param", "says"),
    [
        (CHAT, None, None, "response_format", "response_format 'form'"),
        (CHAT, calling(F), None, "response_format", "response_format 'form'"),
        (CHAT, calling(F, G), "g", "tools.1.parameters", "function 'g'"),
        (CHAT, calling(F, choice="required"), None, "tools.0.parameters", "function 'f'"),
        (FLAT, calling(F, G), None, "text.format.schema", "text.format 'form'"),
        (None, calling(FREE, F), None, "tools.0.parameters", "function 'f'"),
        (None, calling(F, G, FREE), None, "tools", "one of the functions 'f', 'g'"),
        (
            None,
            calling(F, FREE, choice="required"),
            None,
            "tools",
            "one of the functions 'f', 'free'",
        ),
    ],
)
def test_the_schema_at_fault_is_named(
    wanted: Any, told: Calling | None, called: str | None, param: str, says: str
) -> None:
    error = grammar_fault(ERROR, wanted, told, called)
    assert error.param == param
    assert error.message.startswith(f"Invalid schema for {says}: it is too complex")
    assert "(too many states)" in error.message


def test_what_comes_of_no_schema_stays_as_it_is() -> None:
    anything = JsonObjectResponse(type="json_object")
    assert grammar_fault(ERROR, anything, calling(FREE), None) is ERROR
