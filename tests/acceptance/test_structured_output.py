"""Answers in the form that was asked for, through the official SDK."""

import json
from typing import Any, Literal

import pytest
from openai import APIError, BadRequestError, LengthFinishReasonError, OpenAI
from pydantic import BaseModel, Field

from acceptance.test_batches import create, ended, file_of, lines_of, request
from support.server import BASE, Server

HI: Any = [{"role": "user", "content": "ask 001, as JSON"}]


class Leg(BaseModel):
    side: Literal["left", "right"]
    joints: int = Field(ge=0, le=9)


class Animal(BaseModel):
    """What the base, whose weights are random, is to say."""

    name: str = Field(pattern="^[a-z]{1,8}$")
    kind: Literal["cat", "dog"]
    tame: bool | None
    legs: list[Leg] = Field(max_length=2)


def form(schema: dict[str, Any], strict: bool | None = True) -> Any:
    body = {"name": "form", "schema": schema, "strict": strict}
    return {"type": "json_schema", "json_schema": body}


def object_of(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_chat_completion_is_parsed_into_the_model_that_was_asked_for(
    client: OpenAI, seed: int
) -> None:
    made = client.chat.completions.parse(
        model=BASE, messages=HI, response_format=Animal, temperature=1.5, seed=seed, n=2
    )
    for choice in made.choices:
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, Animal)
    assert made.choices[0].message.content != made.choices[1].message.content


def test_a_stream_is_parsed_as_the_whole_answer_is(client: OpenAI) -> None:
    options: Any = {"model": BASE, "messages": HI, "temperature": 1.5, "seed": 5, "logprobs": True}
    whole = client.chat.completions.parse(**options, response_format=Animal).choices[0]
    with client.chat.completions.stream(**options, response_format=Animal) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert isinstance(streamed.message.parsed, Animal)
    assert streamed.message.parsed == whole.message.parsed
    assert streamed.message.content == whole.message.content
    told = [one.logprobs.content or [] for one in (whole, streamed) if one.logprobs]
    assert len(told[0]) == len(told[1]) == len((whole.message.content or "").encode())
    assert told[0][0].token == "{"
    assert told[0][0].logprob == 0  # nothing else could begin it


def test_a_response_is_parsed_and_says_its_format(client: OpenAI) -> None:
    made = client.responses.parse(
        model=BASE, input="ask 001", text_format=Animal, temperature=1.5, max_output_tokens=300
    )
    assert made.status == "completed"
    assert isinstance(made.output_parsed, Animal)
    assert made.text is not None
    told = made.text.format
    assert told is not None
    assert told.type == "json_schema"
    assert (told.name, told.strict) == ("Animal", True)
    assert told.schema_["required"] == ["name", "kind", "tame", "legs"]
    kept = client.responses.retrieve(made.id)
    assert kept.text is not None
    assert kept.text.format == told
    wanted: Any = {
        "type": "json_schema",
        "name": "form",
        "schema": object_of(ok={"const": False}),
        "description": "Whether it is.",
    }
    free = client.responses.create(model=BASE, input="ask 001", text={"format": wanted})
    assert json.loads(free.output_text) == {"ok": False}
    assert free.to_dict()["text"] == {"format": {**wanted, "strict": False}, "verbosity": "medium"}
    with client.responses.stream(
        model=BASE, input="ask 001", text_format=Animal, temperature=1.5
    ) as stream:
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Animal)


def test_a_response_is_a_json_object_where_the_input_speaks_of_json(client: OpenAI) -> None:
    form: Any = {"format": {"type": "json_object"}}
    made = client.responses.create(model=BASE, input="json", text=form, max_output_tokens=16)
    assert made.output_text.startswith("{")
    assert made.text is not None
    assert made.text.format is not None
    assert made.text.format.type == "json_object"
    with pytest.raises(BadRequestError, match="must contain the word 'json'") as refused:
        client.responses.create(model=BASE, input="ask", text=form)
    assert refused.value.param == "input"


def test_a_json_object_is_one_where_the_messages_speak_of_json(client: OpenAI) -> None:
    made = client.chat.completions.create(
        model=BASE,
        messages=HI,
        response_format={"type": "json_object"},
        max_tokens=64,
    ).choices[0]
    assert (made.message.content or "").startswith("{")
    if made.finish_reason == "stop":
        assert isinstance(json.loads(made.message.content or ""), dict)
    with pytest.raises(BadRequestError, match="must contain the word 'json'") as refused:
        client.chat.completions.create(
            model=BASE,
            messages=[{"role": "user", "content": "ask 001"}],
            response_format={"type": "json_object"},
        )
    assert refused.value.param == "messages"


def test_an_answer_that_met_its_length_says_so(client: OpenAI) -> None:
    with pytest.raises(LengthFinishReasonError) as cut:
        client.chat.completions.parse(
            model=BASE, messages=HI, response_format=Animal, max_tokens=10
        )
    assert cut.value.completion.choices[0].finish_reason == "length"
    assert (cut.value.completion.choices[0].message.content or "").startswith("{")


def test_a_schema_that_is_not_strict_is_followed_as_far_as_it_goes(client: OpenAI) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}
    for strict in (False, None):
        made = client.chat.completions.create(
            model=BASE, messages=HI, response_format=form(schema, strict), temperature=1.5
        )
        values = json.loads(made.choices[0].message.content or "")
        assert len(values) == 2
        assert {*values} <= {1, 2}


HOSTILE = {"allOf": [{"type": "string", "pattern": f"a{{{n},}}b.*"} for n in range(200)]}


@pytest.mark.parametrize(
    ("schema", "strict", "says"),
    [
        ({"type": "object", "properties": {}}, True, "'additionalProperties' is required"),
        ({"type": "array", "items": {"type": "string"}}, True, "got 'type: 'array''"),
        (object_of(a={"type": "string", "minLength": 3}), True, "'minLength' is not permitted"),
        ({"not": {"type": "string"}}, False, "Unimplemented"),
        ({"type": "string", "pattern": "(?=a)b"}, False, "look-around"),
        (
            object_of(a=object_of(b={"type": "string", "pattern": "("})),
            True,
            "In context=('properties', 'a', 'properties', 'b'), regex parse error",
        ),
        (
            object_of(a={"type": "number", "multipleOf": 0}),
            True,
            "In context=('properties', 'a'), 'multipleOf' is 0: a number above 0 is needed",
        ),
        (
            object_of(a={"type": "string", "minLength": 10**30}),
            False,
            "In context=('properties', 'a'), 'minLength' is 1e+30: an integer from 0 to 2147483647",
        ),
        (HOSTILE, False, "too much time or memory"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused_and_harms_nothing(
    client: OpenAI, schema: dict[str, Any], strict: bool, says: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(
            model=BASE, messages=HI, response_format=form(schema, strict)
        )
    assert (refused.value.param, refused.value.code) == ("response_format", "invalid_json_schema")
    assert says in refused.value.message
    text: Any = {
        "format": {"type": "json_schema", "name": "form", "schema": schema, "strict": strict}
    }
    for ask in (client.responses.create, client.responses.input_tokens.count):
        with pytest.raises(BadRequestError) as refused:
            ask(model=BASE, input="hi", text=text)
        assert refused.value.param == "text.format.schema"
    made = client.chat.completions.parse(model=BASE, messages=HI, response_format=Animal)
    assert made.choices[0].message.parsed is not None


# Taken at the start, and too much for the bound on its automaton after a hundred letters or two.
GROWING = object_of(
    a={"type": "string", "pattern": "^(([ab]*a[ab]{10}){9}|([ab]*b[ab]{11}){9}){30}$"}
)


def test_a_schema_that_fails_within_the_answer_is_named_by_its_field(client: OpenAI) -> None:
    flat: Any = {"format": {"type": "json_schema", "name": "form", "schema": GROWING}}
    chat: Any = {"model": BASE, "messages": HI, "response_format": form(GROWING)}
    for ask in (
        lambda: client.chat.completions.create(**chat),
        lambda: list(client.chat.completions.create(**chat, stream=True)),
    ):
        with pytest.raises(
            APIError, match=r"schema for response_format 'form': .*expressions"
        ) as at:
            ask()
        assert (at.value.param, at.value.code) == ("response_format", "invalid_json_schema")
        assert "grammar" not in at.value.message
    with pytest.raises(
        BadRequestError, match=r"schema for text.format 'form': .*expressions"
    ) as at:
        client.responses.create(model=BASE, input="hi", text=flat)
    assert (at.value.param, at.value.code) == ("text.format.schema", "invalid_json_schema")
    *_, last = client.responses.create(model=BASE, input="hi", text=flat, stream=True)
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert "Invalid schema for text.format 'form': " in last.response.error.message


def test_a_function_whose_schema_fails_within_the_answer_is_named_by_its_field(
    client: OpenAI,
) -> None:
    small, growing = (
        {"name": name, "parameters": schema, "strict": True}
        for name, schema in (("small", object_of(ok={"type": "boolean"})), ("growing", GROWING))
    )
    nested: Any = [{"type": "function", "function": one} for one in (small, growing)]
    flat: Any = [{"type": "function", **one} for one in (small, growing)]
    functions: Any = [small, growing]
    chat: Any = {"model": BASE, "messages": HI, "response_format": form(object_of(a={"const": 1}))}
    choice: Any = {"type": "function", "function": {"name": "growing"}}
    flat_choice: Any = {"type": "function", "name": "growing"}
    for ask, param in (
        (
            lambda: client.chat.completions.create(**chat, tools=nested, tool_choice=choice),
            "tools.1.function.parameters",
        ),
        (
            lambda: client.chat.completions.create(
                **chat, functions=functions, function_call={"name": "growing"}
            ),
            "functions.1.parameters",
        ),
        (
            lambda: client.responses.create(
                model=BASE, input="hi", tools=flat, tool_choice=flat_choice
            ),
            "tools.1.parameters",
        ),
    ):
        with pytest.raises(
            BadRequestError, match=r"schema for function 'growing': .*express"
        ) as at:
            ask()
        assert (at.value.param, at.value.code) == (param, "invalid_function_parameters")


def test_a_format_without_its_schema_is_refused(server: Server) -> None:
    body = {"type": "json_schema", "json_schema": {"name": "form"}}
    with server.http() as http:
        response = http.post(
            "/v1/chat/completions", json={"model": BASE, "messages": HI, "response_format": body}
        )
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "missing_required_parameter")
    assert error["param"] == "response_format.json_schema.schema"


def test_a_stored_completion_keeps_its_format(client: OpenAI) -> None:
    wanted = form(object_of(ok={"type": "boolean"}))
    wanted["json_schema"]["description"] = "Whether it is."
    made = client.chat.completions.create(
        model=BASE, messages=HI, response_format=wanted, store=True
    )
    kept = client.chat.completions.retrieve(made.id)
    assert kept.to_dict()["response_format"] == wanted


def test_lines_of_a_batch_are_answered_in_their_forms(client: OpenAI) -> None:
    good = form(object_of(ok={"type": "boolean"}))
    bad = form({"type": "object"})
    lines = [
        request(number, messages=HI, max_tokens=100, response_format=wanted)
        for number, wanted in enumerate((good, bad, {"type": "json_object"}, good))
    ]
    batch = ended(client, create(client, file_of(*lines)).id)
    answers = {one["custom_id"]: one for one in lines_of(client, batch.output_file_id)}
    for number in (0, 3):
        body = answers[f"request-{number}"]["response"]["body"]
        assert json.loads(body["choices"][0]["message"]["content"])["ok"] in (True, False)
    (refused,) = lines_of(client, batch.error_file_id)
    assert refused["custom_id"] == "request-1"
    assert refused["response"]["body"]["error"]["param"] == "response_format"
