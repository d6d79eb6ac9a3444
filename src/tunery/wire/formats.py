"""The form that an answer is to have: a request's format, and the grammar it becomes."""

from collections.abc import Iterable, Mapping
from typing import Any

from tunery.datasets.conversation import plain_text
from tunery.datasets.schemas import BadSchema, any_object_grammar, schema_grammar
from tunery.domain.errors import InvalidRequest
from tunery.protocol.response_tools import FlatJsonSchema
from tunery.protocol.tools import (
    JsonObjectResponse,
    JsonSchemaBody,
    JsonSchemaResponse,
    ResponseFormat,
    TextResponse,
)

TextFormat = TextResponse | FlatJsonSchema | JsonObjectResponse


def from_wire_response_format(
    wanted: ResponseFormat | None, messages: Iterable[Mapping[str, Any]]
) -> str | None:
    """Return the grammar of a chat completion's answer; None for any text.

    Raises InvalidRequest for a schema that is not taken. The check of one takes milliseconds, and
    may take seconds: to be called on a thread.
    """
    if isinstance(wanted, JsonSchemaResponse):
        return _grammar(
            wanted.json_schema,
            kind="response_format",
            param="response_format",
            missing="response_format.json_schema.schema",
        )
    if isinstance(wanted, JsonObjectResponse):
        if not _speak_of_json(messages):
            raise InvalidRequest(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of"
                " type 'json_object'.",
                param="messages",
            )
        return any_object_grammar()
    return None


def from_wire_text_format(
    wanted: TextFormat | None, messages: Iterable[Mapping[str, Any]]
) -> str | None:
    """Return the grammar of a response's text, as `from_wire_response_format` does."""
    if isinstance(wanted, FlatJsonSchema):
        return _grammar(
            wanted,
            kind="text.format",
            param="text.format.schema",
            missing="text.format.schema",
        )
    if isinstance(wanted, JsonObjectResponse):
        if not _speak_of_json(messages):
            raise InvalidRequest(
                "Response input messages must contain the word 'json' in some form to use"
                " 'text.format' of type 'json_object'.",
                param="input",
            )
        return any_object_grammar()
    return None


def to_wire_text_format(wanted: TextFormat | None) -> dict[str, Any]:
    """Return the format that a response was asked in, as it is told."""
    if isinstance(wanted, FlatJsonSchema):
        told = wanted.model_dump(mode="json", by_alias=True)
        return {**told, "strict": bool(wanted.strict)}
    return {"type": "text"} if wanted is None else wanted.model_dump()


def _grammar(
    wanted: JsonSchemaBody | FlatJsonSchema, *, kind: str, param: str, missing: str
) -> str:
    if wanted.json_schema is None:
        raise InvalidRequest(
            f"Missing required parameter: '{missing}'.",
            param=missing,
            code="missing_required_parameter",
        )
    try:
        return schema_grammar(wanted.json_schema, strict=bool(wanted.strict))
    except BadSchema as error:
        raise InvalidRequest(
            f"Invalid schema for {kind} '{wanted.name}': {error}.",
            param=param,
            code="invalid_json_schema",
        ) from None


def _speak_of_json(messages: Iterable[Mapping[str, Any]]) -> bool:
    return any("json" in plain_text(message.get("content")).lower() for message in messages)
