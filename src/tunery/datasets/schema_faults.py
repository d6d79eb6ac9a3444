"""Why no answer can follow a JSON schema, and where in it the reason stands.

Knows no rules of strict schemas, and llguidance only as far as what it says of a grammar.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tunery.datasets.grammars import TOO_SLOW, flaw_of
from tunery.domain.errors import Overloaded

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]

_MAX_COUNT = 2**31 - 1
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_UNSATISFIABLE = re.compile(r"Unsatisfiable schema: required property '(.+)' is unsatisfiable")
_DEFINITIONS = ("$defs", "definitions")
_MAPS = (*_DEFINITIONS, "properties", "patternProperties")
_SINGLE = ("items", "additionalProperties", "contains", "not", "if", "then", "else")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
# The search for the place: a part takes a millisecond, and the process that tries them is shared.
_MOST_TRIES, _MOST_TRIED_CHARACTERS = 64, 256 * 1024


def fault_of(schema: Schema, grammar_of: Callable[[Schema], str]) -> str | None:
    """Return why no answer can follow a schema, as far as its start tells; None where one can.

    `grammar_of` makes a schema's grammar. Takes milliseconds, and may take seconds: to be called
    on a thread. Raises Overloaded where too many grammars are being checked.
    """
    for path, part in _parts(schema):
        wrong = _wrong_value(part)
        if wrong is not None:
            return in_context(path, wrong)
    flaw = flaw_of(grammar_of(schema))
    if flaw is None or flaw == TOO_SLOW:
        return flaw
    path, reason = _traced(schema, flaw, grammar_of)
    return in_context(path, reason) if path else reason


def in_context(path: Path, message: str) -> str:
    """Return what is wrong at a place, which is named as OpenAI names it."""
    return f"In context={path!r:.200}, {message}"


def _wrong_value(part: Schema) -> str | None:
    """Return what is wrong with a keyword's value, where llguidance's own words say too little."""
    multiple = part.get("multipleOf")
    if isinstance(multiple, int | float) and not isinstance(multiple, bool) and multiple <= 0:
        return f"'multipleOf' is {multiple:g}: a number above 0 is needed"
    for name in _COUNTS:
        count = part.get(name)
        if not isinstance(count, int | float) or isinstance(count, bool):
            continue
        if not isinstance(count, int) or not 0 <= count <= _MAX_COUNT:
            shown = f"{count:g}" if abs(count) > _MAX_COUNT else repr(count)
            return f"'{name}' is {shown}: an integer from 0 to {_MAX_COUNT} is needed"
    return None


def _traced(schema: Schema, flaw: str, grammar_of: Callable[[Schema], str]) -> tuple[Path, str]:
    """Return the innermost part that has the flaw by itself, and what is said of it there."""
    shared = {name: schema[name] for name in _DEFINITIONS if name in schema}
    path: Path = ()
    part = schema
    tries, characters = _MOST_TRIES, _MOST_TRIED_CHARACTERS
    found = True
    while found:
        found = False
        missed = _UNSATISFIABLE.fullmatch(flaw)
        for step, inner in _inner(part):
            if missed is not None and step != ("properties", missed[1]):
                continue
            grammar = grammar_of({**inner, **shared})
            tries, characters = tries - 1, characters - len(grammar)
            if tries < 0 or characters < 0:
                return path, flaw
            try:
                inner_flaw = flaw_of(grammar)
            except Overloaded:
                return path, flaw
            if inner_flaw == TOO_SLOW:
                return path, flaw
            if inner_flaw is not None and (missed is not None or inner_flaw == flaw):
                path, part, flaw, found = (*path, *step), inner, inner_flaw, True
                break
    return path, flaw


def _parts(schema: Schema) -> Iterator[tuple[Path, Schema]]:
    """Yield a schema and the schemas in it, with the steps to them."""
    left: list[tuple[Path, Schema]] = [((), schema)]
    while left:
        path, part = left.pop()
        yield path, part
        left += [((*path, *step), inner) for step, inner in _inner(part)]


def _inner(part: Schema) -> Iterator[tuple[Path, Schema]]:
    """Yield the schemas right within a schema; what is no schema is passed over."""
    for keyword in _MAPS:
        named = part.get(keyword)
        if isinstance(named, dict):
            yield from (((keyword, key), one) for key, one in named.items() if _is_schema(one))
    for keyword in _SINGLE:
        if _is_schema(part.get(keyword)):
            yield (keyword,), part[keyword]
    for keyword in _LISTS:
        listed = part.get(keyword)
        if isinstance(listed, list):
            yield from (((keyword, n), one) for n, one in enumerate(listed) if _is_schema(one))


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict)
