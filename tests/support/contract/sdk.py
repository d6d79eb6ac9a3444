"""Answers against the SDK's types, strictly: nothing missing, nothing unknown, no other values.

The SDK itself constructs its types without checking. Here the same types are turned into strict
validators: unknown fields are forbidden unless docs/reference/extensions.md lists them.
"""

import functools
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import SchemaValidator, ValidationError

from support.contract.broken import ContractBroken

EXTENSIONS_PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "extensions.md"

# The only values beyond those of the SDK's enumerations; the extensions' page says why.
EXTRA_VALUES: dict[tuple[str, str], tuple[str, ...]] = {
    ("FineTuningJob", "status"): ("paused",),
    ("ChatCompletionStoreMessage", "role"): ("developer", "system", "user", "tool", "function"),
}

# Where the SDK's type says less than the live service answers: what a field takes besides.
NULL: dict[str, Any] = {"type": "none"}
OTHER_ITEMS: dict[tuple[str, str], dict[str, Any]] = {
    # An echoed prompt's first token has nothing before it, and so no probability.
    ("Logprobs", "token_logprobs"): NULL,
    ("Logprobs", "top_logprobs"): NULL,
}
OTHER_TYPES: dict[tuple[str, str], dict[str, Any]] = {
    # OpenAI answers them for supervised jobs only, and null for others.
    ("FineTuningJob", "hyperparameters"): NULL,
    # A streamed piece has the type of a whole answer, and no end yet.
    ("CompletionChoice", "finish_reason"): NULL,
    # The SDK asks for base64 by itself and decodes it before it makes its type.
    ("Embedding", "embedding"): {"type": "str"},
}


class ErrorBody(BaseModel):
    """What went wrong: exactly four keys."""

    model_config = ConfigDict(extra="forbid")
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """What every error is answered with."""

    model_config = ConfigDict(extra="forbid")
    error: ErrorBody


@functools.cache
def extensions() -> dict[str, frozenset[str]]:
    """Return the fields that we add to OpenAI's objects, as the page lists them."""
    found: dict[str, set[str]] = {}
    for name, field in re.findall(r"^\| `(\w+)` \| `(\w+)` \|", EXTENSIONS_PAGE.read_text(), re.M):
        found.setdefault(name, set()).add(field)
    return {name: frozenset(fields) for name, fields in found.items()}


def check(kind: Any, body: bytes, what: str) -> None:
    """Raise ContractBroken unless the JSON `body` is exactly of the type `kind`."""
    try:
        _validator(kind).validate_json(body, strict=True)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the body'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
        lines = "\n  ".join(faults[:20])
        name = getattr(kind, "__name__", str(kind)[:80])
        shown = body[:600].decode(errors="replace")
        raise ContractBroken(f"{what}: not the SDK's {name}:\n  {lines}\nin {shown}") from None


@functools.cache
def _validator(kind: Any) -> SchemaValidator:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    adapter.rebuild(force=True)  # the SDK's types put their schemas off
    # Not the validators that the inner classes have already: those take any field.
    return SchemaValidator(_strict(adapter.core_schema), _use_prebuilt=False)


def _strict(schema: Any) -> Any:
    """Return a core schema in which no model takes a field that it does not name."""
    if isinstance(schema, list | tuple):
        return type(schema)(_strict(one) for one in schema)
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if strict.get("type") == "model":
        strict["config"] = {**strict.get("config", {}), "extra_fields_behavior": "forbid"}
        fields = _fields_of(strict)
        if fields is not None:
            _extend(strict["cls"].__name__, fields)
    return strict


def _fields_of(model: dict[str, Any]) -> dict[str, Any] | None:
    """Return the part of a model's schema that holds its fields, below its validators."""
    inner: Any = model["schema"]
    while inner.get("type") != "model-fields":
        if "schema" not in inner:  # a model whose whole is not an object
            return None
        inner = inner["schema"]
    fields: dict[str, Any] = inner
    fields["extra_behavior"] = "forbid"
    return fields


def _extend(name: str, schema: dict[str, Any]) -> None:
    fields = schema["fields"]
    for field in extensions().get(name, ()):
        anything = {"type": "default", "schema": {"type": "any"}, "default": None}
        fields.setdefault(field, {"type": "model-field", "schema": anything})
    for (owner, field), values in EXTRA_VALUES.items():
        if owner == name:
            fields[field]["schema"]["expected"] = [*fields[field]["schema"]["expected"], *values]
    for (owner, field), besides in OTHER_ITEMS.items():
        if owner == name and field in fields:
            items = _list_within(fields[field]["schema"])
            items["items_schema"] = _either(items["items_schema"], besides)
    for (owner, field), besides in OTHER_TYPES.items():
        if owner == name:
            fields[field]["schema"] = _either(fields[field]["schema"], besides)


def _either(schema: dict[str, Any], besides: dict[str, Any]) -> dict[str, Any]:
    return {"type": "union", "choices": [schema, besides]}


def _list_within(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the list's schema, below its default and its nullability."""
    while schema["type"] != "list":
        schema = schema["schema"]
    return schema
