"""JSON schemas that answers have to follow: which are taken, and the grammars they become.

Knows no request: a BadSchema says what is wrong with a schema, and where. The rules of strict
schemas are those of OpenAI's page "Structured model outputs", section "Supported schemas".
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

import orjson

from tunery.datasets.schema_faults import Path, fault_of, in_context

_MAX_DEPTH = 60  # of JSON in JSON: llguidance reads 128, of which its own frame takes some
# The automaton of "multiple of n" has n states, and takes 10 us for each.
_MAX_MULTIPLES = 10_000
# Between two parts of JSON stands nothing, a space, or a line break with an indent: a small model
# that likes white space would go on with it forever.
_FORM = {"whitespace_pattern": r" |\n {0,20}"}

_ANNOTATIONS = frozenset({"title", "description"})
_AT_ROOT = frozenset({"$schema", "$defs", "definitions"})
_ANY_TYPE = frozenset({"type", "enum", "const", "anyOf", "$ref"})
_NUMBER = frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_OF_TYPE: dict[Any, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"pattern", "format"}),
    "number": _NUMBER,
    "integer": _NUMBER,
    "boolean": frozenset(),
    "null": frozenset(),
}
_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_MAX_PROPERTIES = 5_000
_MAX_OBJECTS = 10  # within one another
_MAX_ENUM_VALUES = 1_000
_MAX_CHARACTERS = 120_000  # of names, enum values and constants
_LARGE_ENUM, _MAX_LARGE_ENUM_CHARACTERS = 250, 15_000


class BadSchema(ValueError):
    """A schema that no answer can be made to follow, or that breaks a rule of strict ones."""


def schema_grammar(schema: Mapping[str, Any], *, strict: bool) -> str:
    """Return the grammar of the JSON texts that follow a schema; raise BadSchema."""
    _check_bounds(schema)
    if strict:
        _Strict(schema).check()
    fault = fault_of(schema, _grammar)
    if fault is not None:
        raise BadSchema(fault)
    return _grammar(schema)


def _grammar(schema: Mapping[str, Any]) -> str:
    """Return a schema's grammar, which is yet to be checked."""
    try:
        text = orjson.dumps({**schema, "x-guidance": _FORM}).decode()
    except TypeError as error:
        raise BadSchema(f"it cannot be written as JSON: {error}") from None
    return f"start: %json {text}"


def any_object_grammar() -> str:
    """Return the grammar of all JSON objects."""
    return schema_grammar({"type": "object"}, strict=False)


def _check_bounds(schema: Mapping[str, Any]) -> None:
    """Raise BadSchema for what would keep llguidance busy for long, before it sees it."""
    multiples = 0
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        value, depth = left.pop()
        if depth > _MAX_DEPTH:
            raise BadSchema(f"it is nested deeper than {_MAX_DEPTH} levels of JSON")
        if isinstance(value, dict):
            left += [(one, depth + 1) for one in value.values()]
            multiples += _multiples(value.get("multipleOf"))
        elif isinstance(value, list):
            left += [(one, depth + 1) for one in value]
    if multiples > _MAX_MULTIPLES:
        raise BadSchema(
            f"the significant digits of its 'multipleOf' add up to {multiples}, at most"
            f" {_MAX_MULTIPLES} are taken"
        )


def _multiples(value: Any) -> int:
    """Return the significant digits of a number as an integer: 35 for 0.35 and for 3500."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int("".join(map(str, Decimal(repr(value)).normalize().as_tuple().digits)))


class _Strict:
    """Checks one schema by the rules of strict ones, each part once."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._parts: set[Path] = set()
        self._references: list[tuple[Path, str]] = []
        self._properties = 0
        self._enum_values = 0
        self._characters = 0

    def check(self) -> None:
        """Raise BadSchema for the first rule that is broken."""
        root = self._schema
        if root.get("type") != "object":
            raise BadSchema(
                "schema must be a JSON Schema of 'type: \"object\"', got 'type:"
                f" {_shown(root.get('type'))}'"
            )
        if "anyOf" in root:
            raise _at((), "'anyOf' is not permitted at the root")
        self._check_part(root, (), 1)
        for path, reference in self._references:
            if _target(reference) not in self._parts:
                raise _at(path, f"reference {_shown(reference)} leads to no part of this schema")
        for count, most, what in (
            (self._properties, _MAX_PROPERTIES, "object properties"),
            (self._enum_values, _MAX_ENUM_VALUES, "enum values"),
            (self._characters, _MAX_CHARACTERS, "characters of names, enum values and constants"),
        ):
            if count > most:
                raise BadSchema(f"it has {count} {what}, at most {most} are permitted")

    def _check_part(self, part: Any, path: Path, objects: int) -> None:
        """Check a schema within the schema; `objects` counts those it is in, itself included."""
        if not isinstance(part, dict):
            raise _at(path, f"{_shown(part)} is not a schema: an object is needed")
        self._parts.add(path)
        types = _types(part, path)
        permitted = _ANY_TYPE.union(_ANNOTATIONS, *(_OF_TYPE[one] for one in types))
        if not path:
            permitted |= _AT_ROOT
        for keyword in part:
            if keyword not in permitted:
                raise _at(path, f"'{keyword[:80]}' is not permitted")
        if not types and not part.keys() & {"anyOf", "$ref", "enum", "const"}:
            raise _at(path, "schema must have a 'type' key")
        if "object" in types:
            if objects > _MAX_OBJECTS:
                raise _at(path, f"more than {_MAX_OBJECTS} levels of nesting are not permitted")
            self._check_object(part, path)
        if "format" in part and str(part["format"]) not in _FORMATS:
            raise _at(path, f"format {_shown(part['format'])} is not permitted")
        if "array" in types and "items" not in part:
            raise _at(path, "array schema missing items")
        self._count_constants(part, path)
        if "$ref" in part:
            self._references.append((path, part["$ref"]))
        for step, inner in _parts_of(part, path):
            self._check_part(inner, (*path, *step), objects + ("object" in types))

    def _check_object(self, part: Mapping[str, Any], path: Path) -> None:
        if part.get("additionalProperties") is not False:
            raise _at(path, "'additionalProperties' is required to be supplied and to be false")
        names = _object(part.get("properties", {}), path, "properties")
        required = part.get("required", [] if not names else None)
        if not isinstance(required, list):
            raise _at(
                path,
                "'required' is required to be supplied and to be an array including every key in"
                " properties",
            )
        for name in names:
            if name not in required:
                raise _at(
                    path,
                    "'required' is required to be supplied and to be an array including every key"
                    f" in properties. Missing '{name[:80]}'",
                )
        for name in required:
            if name not in names:
                raise _at(path, f"extra required key {_shown(name)} supplied")
        self._properties += len(names)
        self._characters += sum(map(len, names))

    def _count_constants(self, part: Mapping[str, Any], path: Path) -> None:
        values = part.get("enum", [])
        if not isinstance(values, list):
            raise _at(path, f"'enum' is {_shown(values)}: an array is needed")
        characters = sum(len(one) for one in values if isinstance(one, str))
        if len(values) > _LARGE_ENUM and characters > _MAX_LARGE_ENUM_CHARACTERS:
            raise _at(
                path,
                f"an enum of more than {_LARGE_ENUM} values has {characters} characters, at most"
                f" {_MAX_LARGE_ENUM_CHARACTERS} are permitted",
            )
        constant = part.get("const")
        self._enum_values += len(values)
        self._characters += characters + (len(constant) if isinstance(constant, str) else 0)
        for keyword in _AT_ROOT & part.keys():
            if isinstance(part[keyword], dict):
                self._characters += sum(map(len, part[keyword]))


def _parts_of(part: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the schemas right within a schema, with the steps to them."""
    for keyword in ("properties", "$defs", "definitions"):
        for name, inner in _object(part.get(keyword, {}), path, keyword).items():
            yield (keyword, name), inner
    if "items" in part:
        yield ("items",), part["items"]
    alternatives = part.get("anyOf", [])
    if not isinstance(alternatives, list):
        raise _at(path, f"'anyOf' is {_shown(alternatives)}: an array is needed")
    for number, inner in enumerate(alternatives):
        yield ("anyOf", number), inner


def _types(part: Mapping[str, Any], path: Path) -> list[str]:
    given = part.get("type", [])
    types = given if isinstance(given, list) else [given]
    for one in types:
        if not isinstance(one, str) or one not in _OF_TYPE:
            raise _at(path, f"{_shown(one)} is not a type")
    return types


def _object(value: Any, path: Path, keyword: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _at(path, f"'{keyword}' is {_shown(value)}: an object is needed")
    return value


def _target(reference: Any) -> Path | None:
    """Return the part that a reference leads to: RFC 6901's JSON Pointer after a '#'."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    steps = [step.replace("~1", "/").replace("~0", "~") for step in reference[1:].split("/")]
    if steps[0]:
        return None
    return tuple(
        int(step) if before == "anyOf" and step.isdecimal() else step
        for before, step in pairwise(steps)
    )


def _at(path: Path, message: str) -> BadSchema:
    """Return the error at a place, which is named as OpenAI names it."""
    return BadSchema(in_context(path, message))


def _shown(value: Any) -> str:
    return f"{value!r:.80}"
