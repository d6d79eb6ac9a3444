"""Schemas: which are taken, what is said of the others, and what JSON follows one."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tunery.datasets.schemas import BadSchema, any_object_grammar, schema_grammar
from tunery.datasets.tokenizer import TextTokenizer
from tunery.engine.grammar import GrammarCompiler

STRING = {"type": "string"}


def object_of(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = object_of()
    for _ in range(levels - 1):
        inner = object_of(a=inner)
    return inner


LINKED = {
    "type": "object",
    "properties": {
        "value": {"type": ["integer", "null"], "minimum": -5, "maximum": 20, "multipleOf": 5},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    },
    "required": ["value", "next"],
    "additionalProperties": False,
    "$defs": {
        "node": object_of(day={"type": "string", "format": "date"}, leaf={"$ref": "#/$defs/leaf"}),
        "leaf": {"type": "array", "items": {"enum": ["<|im_end|>", 1, None]}, "maxItems": 2},
    },
}
STRICT: list[dict[str, Any]] = [
    object_of(),
    {**object_of(), "properties": {}, "title": "T", "description": "D"},
    object_of(a=STRING, b={"const": 5}, c={"type": "array", "items": {"type": "boolean"}}),
    object_of(a={"type": "string", "pattern": "^[a-z]+$"}, b={"type": "number", "minimum": 0}),
    object_of(a={"anyOf": [{"$ref": "#"}, {"type": "null"}]}, b={"$ref": "#/properties/a/anyOf/1"})
    | {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    object_of(**{"a/b~c": STRING, "d": {"$ref": "#/properties/a~1b~0c"}}),
    nested(10),
    object_of(**{f"p{n}": {"enum": [f"{n}"]} for n in range(1000)}),
    LINKED,
]


@pytest.mark.parametrize("schema", STRICT, ids=range(len(STRICT)))
def test_a_schema_within_the_rules_is_taken(schema: dict[str, Any]) -> None:
    assert schema_grammar(schema, strict=True).startswith("start: %json {")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({}, "'type: \"object\"', got 'type: None'"),
        ({"type": "array", "items": STRING}, "got 'type: 'array''"),
        ({**object_of(), "anyOf": [STRING]}, "In context=(), 'anyOf' is not permitted at the root"),
        ({"type": "object"}, "In context=(), 'additionalProperties' is required to be"),
        (
            object_of(a={"type": "object", "additionalProperties": True}),
            "In context=('properties', 'a'), 'additionalProperties' is required",
        ),
        ({**object_of(a=STRING), "required": []}, "Missing 'a'"),
        ({**object_of(a=STRING), "required": ["a", "b"]}, "extra required key 'b'"),
        ({**object_of(a=STRING), "required": None}, "'required' is required to be supplied"),
        ({**object_of(), "properties": []}, "'properties' is []"),
        (object_of(a={}), "In context=('properties', 'a'), schema must have a 'type' key"),
        (object_of(a=True), "True is not a schema"),
        (object_of(a={"type": "text"}), "'text' is not a type"),
        (object_of(a={"type": ["string", {}]}), "{} is not a type"),
        (object_of(a={"type": "array"}), "array schema missing items"),
        (object_of(a={"type": "array", "items": {}}), "('properties', 'a', 'items')"),
        (object_of(a={"anyOf": STRING}), "'anyOf' is {'type': 'string'}"),
        (object_of(a={"anyOf": [STRING, {"allOf": []}]}), "('properties', 'a', 'anyOf', 1)"),
        (object_of(a={"allOf": [STRING]}), "'allOf' is not permitted"),
        (object_of(a={"type": "string", "default": ""}), "'default' is not permitted"),
        (object_of(a={"type": "string", "minimum": 5}), "'minimum' is not permitted"),
        (object_of(a={"type": "string", "format": "color"}), "format 'color' is not permitted"),
        (object_of(a={"type": "string", "format": ["x"]}), "format ['x'] is not permitted"),
        (object_of(a={"enum": 5}), "'enum' is 5"),
        (object_of(a={"$ref": "#/$defs/a"}), "leads to no part of this schema"),
        (object_of(a={"$ref": "https://example.com/s.json"}), "leads to no part of this schema"),
        (object_of(a={"$ref": 5}), "leads to no part of this schema"),
        (object_of(a={**STRING, "x-guidance": {}}), "'x-guidance' is not permitted"),
        (nested(11), "more than 10 levels of nesting"),
        (object_of(**{f"p{n}": STRING for n in range(5001)}), "5001 object properties"),
        (object_of(a={"enum": list(range(1001))}), "1001 enum values"),
        (object_of(a={"enum": ["x" * 60 + f"{n:03}" for n in range(251)]}), "has 15813 characters"),
        (object_of(**{"x" * 120_001: STRING}), "120001 characters"),
        (object_of(a={"type": "integer", "multipleOf": 1234567}), "add up to 1234567"),
    ],
)
def test_a_schema_that_breaks_a_rule_of_strict_ones_is_refused(
    schema: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadSchema) as refused:
        schema_grammar(schema, strict=True)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"not": STRING}, "not"),
        ({"type": "string", "format": "color"}, "color"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength"),
        ({"type": 5}, "type"),
        ({"$ref": "https://example.com/s.json"}, "https://example.com/s.json"),
        ({"$ref": "#"}, "no answer can follow it"),
        ({"enum": ["\ud800"]}, "cannot be written as JSON"),
        ({"multipleOf": 0.123456}, "add up to 123456"),
        ({"anyOf": [{"type": "integer", "multipleOf": n} for n in range(1, 200)]}, "add up to"),
        (nested(40), "deeper than 60 levels"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_any_schema(
    schema: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadSchema) as refused:
        schema_grammar(schema, strict=False)
    assert says in str(refused.value)


def test_a_schema_nested_without_end_is_refused_before_anything_reads_it() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"items": schema}
    for strict in (True, False):
        with pytest.raises(BadSchema, match="deeper than 60 levels"):
            schema_grammar(schema, strict=strict)
    while schema:  # let go of it level by level: Python's own way down is recursive
        schema = schema["items"]


# ---- what follows a schema


class Writer:
    """Writes JSON at random: any byte that the grammar allows, each as likely as another."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = TextTokenizer(folder)
        self._compiler = GrammarCompiler(self._tokenizer, self._tokenizer.vocabulary)

    def write(self, grammar: str, seed: int) -> str:
        matcher = self._compiler.compile_now(grammar)
        rng = random.Random(seed)
        made: list[int] = []
        while not matcher.complete:
            assert matcher.failure is None
            allowed = (~matcher.forbidden()).nonzero()[:, 0].tolist()
            ends = [token for token in allowed if token in self._tokenizer.eos_ids]
            if ends:
                break
            quote = [token for token in allowed if self._tokenizer.token_id_bytes(token) == b'"']
            made.append(rng.choice(quote if quote and rng.random() < 0.2 else allowed))
            matcher.take(made[-1])
        return self._tokenizer.decode(made)

    def takes(self, grammar: str, text: str) -> bool:
        matcher = self._compiler.compile_now(grammar)
        for token in self._tokenizer.text_ids(text):
            if bool(matcher.forbidden()[token]):
                return False
            matcher.take(token)
        return matcher.complete


@pytest.fixture(scope="module")
def writer(tiny_model: Path) -> Writer:
    return Writer(tiny_model)


def _several() -> Iterator[Any]:
    yield pytest.param(LINKED, True, id="linked")
    text = {"type": "string", "pattern": '^([a-z]|\\\\|"){1,6}$'}
    yield pytest.param(object_of(a=STRING, b=text), True, id="strings")
    yield pytest.param(
        {"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "number"}}]},
        False,
        id="not strict",
    )


@pytest.mark.parametrize(("schema", "strict"), list(_several()))
def test_whatever_is_written_by_a_grammar_fits_its_schema(
    writer: Writer, schema: dict[str, Any], strict: bool
) -> None:
    grammar = schema_grammar(schema, strict=strict)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    texts = {writer.write(grammar, seed) for seed in range(60)}
    for text in texts:
        validator.validate(json.loads(text))
    assert len(texts) > 10


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('{"a":["x"],"b":1}', True),
        ('{"a": ["x", "y"], "b": -1.5e3}', True),
        ('{\n  "a": [\n    "é😀"\n  ],\n  "b": 1\n}', True),
        ('{  "a":[],"b":1}', False),
        ('{"a":[],\n\n"b":1}', False),
        ('{"a":[],\t"b":1}', False),
        ('{"b":1,"a":[]}', False),
        ('{"a":[],"b":01}', False),
        ('{"a":["\\ud800"],"b":1}', False),
        (' {"a":[],"b":1}', False),
    ],
)
def test_the_form_of_json_is_free_within_bounds(writer: Writer, text: str, taken: bool) -> None:
    schema = object_of(a={"type": "array", "items": STRING}, b={"type": "number"})
    # A form of the caller's own would lift the bound on white space.
    own = {**schema, "x-guidance": {"whitespace_flexible": True}}
    assert writer.takes(schema_grammar(own, strict=False), text) is taken


@pytest.mark.parametrize(
    ("text", "taken"),
    [('{"a": {"b": [1, null]}}', True), ("{}", True), ("[]", False), ("1", False)],
)
def test_any_object_is_an_object(writer: Writer, text: str, taken: bool) -> None:
    assert writer.takes(any_object_grammar(), text) is taken
