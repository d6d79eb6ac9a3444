"""What is wrong with a schema is said with its place."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tunery.datasets.schema_faults import fault_of

STRING = {"type": "string"}
BROKEN = {**STRING, "pattern": "("}
SHORT = {**STRING, "minLength": 3, "maxLength": 2}


def grammar_of(schema: Mapping[str, Any]) -> str:
    return f"start: %json {json.dumps(schema)}"


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"multipleOf": 0}, "In context=(), 'multipleOf' is 0: a number above 0 is needed"),
        (object_of(a={"multipleOf": -0.5}), "('properties', 'a'), 'multipleOf' is -0.5: a number"),
        (
            object_of(a={**STRING, "minLength": 1e30}),
            "In context=('properties', 'a'), 'minLength' is 1e+30: an integer from 0 to 2147483647"
            " is needed",
        ),
        ({"maxItems": 2**31}, "'maxItems' is 2.14748e+09: an integer"),
        ({"minProperties": -1}, "'minProperties' is -1: an integer"),
        ({"minLength": 1.5}, "'minLength' is 1.5: an integer"),
        (BROKEN, "regex parse error: error: unclosed group"),
        (
            object_of(
                ok=STRING, many={"type": "array", "items": {"anyOf": [STRING, object_of(b=BROKEN)]}}
            ),
            "In context=('properties', 'many', 'items', 'anyOf', 1, 'properties', 'b'),"
            " regex parse error: error: unclosed group",
        ),
        (
            {**object_of(a={"$ref": "#/$defs/x"}), "$defs": {"x": object_of(b=BROKEN)}},
            "In context=('$defs', 'x', 'properties', 'b'), regex parse error",
        ),
        (object_of(a=object_of(b={"$ref": "#/$defs/x"})), "('properties', 'a', 'properties', 'b')"),
        # One that may be left out may be impossible; one that is required may not.
        (
            {**object_of(a=SHORT, b=object_of(c=SHORT)), "required": ["b"]},
            "In context=('properties', 'b', 'properties', 'c'), Unsatisfiable schema: minLength (3)"
            " is greater than maxLength (2)",
        ),
        (object_of(a=False), "required property 'a' is unsatisfiable"),
        # The place is looked for as long as that is cheap.
        (object_of(**{f"p{n}": STRING for n in range(100)}, z=BROKEN), "regex parse error"),
        (object_of(a={**STRING, "pattern": "x" * 300_000 + "("}), "regex parse error"),
    ],
)
def test_a_fault_is_told_with_its_place(schema: dict[str, Any], says: str) -> None:
    fault = fault_of(schema, grammar_of)
    assert fault is not None
    assert says in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    "schema",
    [
        {"const": {"multipleOf": 0, "minLength": -1}},
        {"enum": [{"multipleOf": 0}]},
        object_of(multipleOf={"type": "integer"}, minLength=STRING),
        {**object_of(b=STRING), "properties": {"a": SHORT, "b": STRING}},
    ],
)
def test_what_only_looks_like_a_fault_is_none(schema: dict[str, Any]) -> None:
    assert fault_of(schema, grammar_of) is None


def test_the_search_ends_after_so_many_tries() -> None:
    tried: list[str] = []

    def counted(schema: Mapping[str, Any]) -> str:
        tried.append(grammar_of(schema))
        return tried[-1]

    wide = object_of(**{f"p{n}": STRING for n in range(1000)}, z=BROKEN)
    assert fault_of(wide, counted) == "regex parse error: error: unclosed group"
    assert len(tried) < 70
