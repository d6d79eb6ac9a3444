"""A conversation is prepared for the engine, and charged once."""

import dataclasses
from typing import Any

import pytest

from support.rows import CONTEXT_TOKENS, OURS, THEIRS, a_model, render_with
from tunery.datasets.heard import Reading
from tunery.datasets.tools import PLAIN, Calling, Function
from tunery.domain.errors import ContextTooLong, InvalidRequest, NotFound
from tunery.domain.tenants import Caller
from tunery.domain.usage import UsageKind
from tunery.services import chat
from tunery.services.answers import Options, PreparedAnswer, ledger_line
from tunery.services.known_models import KnownModels
from tunery.services.ledger import write_lines
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database
from tunery.storage.repositories.usage import UsageTotal

REQUEST = chat.ChatRequest(
    model="gpt-tiny",
    messages=[{"role": "user", "content": "Hi!"}],
    options=Options(max_tokens=5, temperature=0.5, top_p=0.9, stop=("x",), seed=3),
    end_user="someone",
)
# A token a byte and one for each mark: "<s>user\nHi!<e>\n<s>assistant\n".
PROMPT_TOKENS = 1 + len("user\n") + len("Hi!") + 1 + len("\n") + 1 + len("assistant\n")


def with_options(**changes: Any) -> chat.ChatRequest:
    return dataclasses.replace(REQUEST, options=dataclasses.replace(REQUEST.options, **changes))


def prepare(
    database: Database,
    directory: ModelDirectory,
    request: chat.ChatRequest,
    engine_context: int = 10_000,
) -> PreparedAnswer:
    models = KnownModels(database, directory)
    return chat.prepare_chat(models, render_with, engine_context, OURS, request)


def test_a_request_becomes_a_generation(database: Database, directory: ModelDirectory) -> None:
    prepared = prepare(database, directory, REQUEST)
    (generation,) = prepared.generations
    assert prepared.prompt_tokens == len(generation.prompt_ids) == PROMPT_TOKENS
    assert (generation.base_digest, generation.adapter) == (directory.base().digest, None)
    assert (generation.max_tokens, generation.temperature, generation.top_p) == (5, 0.5, 0.9)
    assert (generation.stop, generation.seed) == (("x",), 3)


@pytest.mark.parametrize("engine_context", [64, 10_000])
def test_an_answer_may_fill_the_smaller_context_and_not_a_token_more(
    database: Database, directory: ModelDirectory, engine_context: int
) -> None:
    room = min(engine_context, CONTEXT_TOKENS) - PROMPT_TOKENS
    for asked in (room, None):
        request = with_options(max_tokens=asked)
        prepared = prepare(database, directory, request, engine_context)
        assert prepared.generations[0].max_tokens == room
    with pytest.raises(ContextTooLong):
        prepare(database, directory, with_options(max_tokens=room + 1), engine_context)


def test_a_prompt_that_leaves_no_room_is_refused(
    database: Database, directory: ModelDirectory
) -> None:
    request = with_options(max_tokens=None)
    assert prepare(database, directory, request, PROMPT_TOKENS + 1).generations[0].max_tokens == 1
    with pytest.raises(ContextTooLong):
        prepare(database, directory, request, PROMPT_TOKENS)


def test_another_projects_model_is_refused_as_an_unknown_one(
    database: Database, directory: ModelDirectory
) -> None:
    with database.write() as tx:
        tx.models(THEIRS).add(a_model(base_digest=directory.base().digest))
    told = []
    for name in (a_model().name, "ft:tiny:acme::zzzzzzzz"):
        with pytest.raises(NotFound) as refused:
            prepare(database, directory, dataclasses.replace(REQUEST, model=name))
        told.append((refused.value.message.replace(name, "<name>"), refused.value.code))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("model", "nanodollars"),
    [
        # Dollars a million tokens are 1000 nanodollars a token: 22 in, 7 out.
        ("gpt-tiny", PROMPT_TOKENS * 1_500 + 7 * 2_000),
        (a_model().name, PROMPT_TOKENS * 12_000 + 7 * 16_000),
    ],
)
def test_an_answer_is_charged_once_at_its_models_price(
    database: Database, directory: ModelDirectory, model: str, nanodollars: int
) -> None:
    tuned = a_model(base_digest=directory.base().digest)
    with database.write() as tx:
        tx.models(OURS).add(tuned)
    prepared = prepare(database, directory, dataclasses.replace(REQUEST, model=model))
    assert prepared.generations[0].adapter == (tuned.adapter if model == tuned.name else None)
    for _ in range(2):
        write_lines(database, [ledger_line(Caller(OURS, "key_1", "req-1"), prepared, 7)])
    with database.read() as tx:
        assert tx.usage(OURS).totals() == [
            UsageTotal(UsageKind.CHAT, 1, PROMPT_TOKENS, 7, nanodollars)
        ]
        assert tx.usage(THEIRS).totals() == []


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenized(
    database: Database, directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(*_: object) -> list[int]:
        raise AssertionError("it was tokenized")

    monkeypatch.setattr("tunery.datasets.tokenizer._encode", counted)
    # The longest token, "<|im_start|>", has 12 characters: this is more than the context of them.
    text = "x" * (12 * (CONTEXT_TOKENS + 2))
    request = dataclasses.replace(REQUEST, messages=[{"role": "user", "content": text}])
    with pytest.raises(ContextTooLong):
        prepare(database, directory, request)


LOOK_UP = Function(
    "look_up",
    parameters={"type": "object", "properties": {"key": {"enum": ["k"]}}, "required": ["key"]},
)
BROKEN = Function("broken", parameters={"$ref": "#/nowhere"}, param="tools.1.parameters")


def test_a_prompt_tells_of_its_functions_and_the_answer_follows_their_grammar(
    database: Database, directory: ModelDirectory
) -> None:
    renderer = render_with(directory.base())
    for choice, held in (("auto", False), ("required", True), ("none", False)):
        calling = Calling((LOOK_UP,), ("look_up",), choice)  # type: ignore[arg-type]
        prepared = prepare(database, directory, dataclasses.replace(REQUEST, calling=calling))
        (generation,) = prepared.generations
        assert generation.prompt_ids == renderer.prompt(REQUEST.messages, (LOOK_UP,))
        assert prepared.prompt_tokens == len(generation.prompt_ids) > PROMPT_TOKENS
        assert generation.grammar is not None
        assert ('"enum"' in generation.grammar) == held
        may_call = Reading(PLAIN, ("look_up",), required=choice == "required")
        assert prepared.reading == (None if choice == "none" else may_call)
    assert prepare(database, directory, REQUEST).reading is None


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_schema_that_cannot_be_followed_is_refused_where_it_has_to_be(
    database: Database, directory: ModelDirectory, choice: Any
) -> None:
    for strict in (False, None, True):
        functions = (Function("f"), dataclasses.replace(BROKEN, strict=strict))
        calling = Calling(functions, ("f", "broken"), choice)
        request = dataclasses.replace(REQUEST, calling=calling)
        if not strict:
            grammar = prepare(database, directory, request).generations[0].grammar
            assert grammar is not None
            assert "nowhere" not in grammar
            continue
        with pytest.raises(InvalidRequest, match="Invalid schema for function 'broken'") as refused:
            prepare(database, directory, request)
        assert refused.value.param == "tools.1.parameters"


def test_each_choice_has_a_seed_of_its_own_and_the_first_has_the_one_that_was_asked_for(
    database: Database, directory: ModelDirectory
) -> None:
    top = 2**63 - 1
    prepared = prepare(database, directory, with_options(n=3, seed=top))
    assert [one.seed for one in prepared.generations] == [top, -(2**63), -(2**63) + 1]
    assert prepared.prompt_tokens == PROMPT_TOKENS  # charged once, however many answers
    unseeded = prepare(database, directory, with_options(n=2, seed=None))
    assert [one.seed for one in unseeded.generations] == [None, None]


def test_a_bias_on_a_token_that_the_model_does_not_have_is_refused(
    database: Database, directory: ModelDirectory
) -> None:
    ids = render_with(directory.base()).tokenizer.vocabulary
    kept = prepare(database, directory, with_options(logit_bias=((ids - 1, 5.0),)))
    assert kept.generations[0].logit_bias == ((ids - 1, 5.0),)
    with pytest.raises(InvalidRequest) as refused:
        prepare(database, directory, with_options(logit_bias=((ids, 5.0),)))
    assert refused.value.param == "logit_bias"
