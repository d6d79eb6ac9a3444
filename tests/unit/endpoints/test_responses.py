"""A response without HTTP: kept before it is told of, and what becomes of one that breaks off."""

from typing import Any, cast

import anyio
import pytest

from support.rows import CONTEXT_TOKENS, OURS, THEIRS, render_with
from support.scripted import WHOLE, ScriptedEngine
from support.scripted import scripted_parts as parts
from tunery.domain.errors import InvalidRequest, NotFound, Unavailable
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.tenants import Caller
from tunery.domain.usage import UsageKind
from tunery.endpoints import chat, responses
from tunery.protocol.response_events import LifeEvent
from tunery.protocol.responses import OutputMessage
from tunery.services.models import ModelDirectory
from tunery.services.responses import get_response
from tunery.services.stored_completions import get_completion
from tunery.storage.database import Database
from tunery.storage.repositories.usage import UsageTotal
from tunery.wire.chat import TextChunk

CALLER = Caller(OURS, "key_1", "req_1")
BODY: dict[str, Any] = {"model": "tiny", "input": "Hi!"}
PROMPT_TOKENS = len("1user\nHi!e\n1assistant\n")  # a token a byte and one for each mark
KEY = OnceKey(b"k" * 32, b"r" * 32)


async def events_of(answer: responses.ResponseAnswer) -> list[Any]:
    await answer.start()
    return [event async for event in answer.events()]


def totals(database: Database) -> list[UsageTotal]:
    with database.read() as tx:
        return tx.usage(OURS).totals()


def stored(database: Database, response_id: str) -> Any:
    return get_response(database, OURS, response_id)


def test_a_whole_response_is_billed_and_kept(database: Database, directory: ModelDirectory) -> None:
    response = anyio.run(responses.answer, parts(database, directory), CALLER, BODY)
    (message,) = response.output
    assert isinstance(message, OutputMessage)
    assert message.content[0].text == "Hello"
    kept = stored(database, response.id)
    assert kept.response == response.model_dump(mode="json")
    assert kept.expires_at == kept.created_at + 60
    (total,) = totals(database)
    assert (total.kind, total.input_tokens, total.output_tokens) == (
        UsageKind.CHAT,
        PROMPT_TOKENS,
        3,
    )
    with pytest.raises(NotFound):
        get_response(database, THEIRS, response.id)


def test_it_is_kept_before_its_closing_events(
    database: Database, directory: ModelDirectory
) -> None:
    async def run() -> None:
        answer = await responses.begin(parts(database, directory), CALLER, BODY)
        response_id = None
        async for event in answer.events():
            if isinstance(event, LifeEvent) and event.type == "response.created":
                response_id = event.response.id
                with pytest.raises(NotFound):
                    stored(database, response_id)
            if event.type == "response.output_text.done":
                assert stored(database, response_id or "").id == response_id
                assert totals(database)[0].output_tokens == 3

    anyio.run(run)


def test_a_response_that_is_not_to_be_kept_is_not(
    database: Database, directory: ModelDirectory
) -> None:
    body = {**BODY, "store": False}
    response = anyio.run(responses.answer, parts(database, directory), CALLER, body)
    with pytest.raises(NotFound):
        stored(database, response.id)
    assert totals(database)[0].output_tokens == 3


def test_an_engine_that_fails_in_mid_stream_ends_it_with_a_failed_response(
    database: Database, directory: ModelDirectory
) -> None:
    async def run() -> list[Any]:
        broken = parts(database, directory, WHOLE[0], Unavailable("The engine is gone."))
        answer = await responses.begin(broken, CALLER, BODY)
        try:
            return await events_of(answer)
        finally:
            await answer.close()

    *_, piece, last = anyio.run(run)
    assert piece.delta == "Hel"
    assert (last.type, last.sequence_number) == ("response.failed", 5)
    assert last.response.error.message == "The engine is gone."
    with pytest.raises(NotFound):
        stored(database, last.response.id)
    assert totals(database)[0].output_tokens == 1  # what the client has


def test_an_engine_that_fails_a_whole_response_is_not_paid(
    database: Database, directory: ModelDirectory
) -> None:
    broken = parts(database, directory, WHOLE[0], Unavailable("The engine is gone."))
    with pytest.raises(Unavailable):
        anyio.run(responses.answer, broken, CALLER, BODY)
    assert totals(database) == []


def test_a_client_that_leaves_pays_for_what_was_made_and_nothing_is_kept(
    database: Database, directory: ModelDirectory
) -> None:
    async def run() -> str:
        answer = await responses.begin(parts(database, directory), CALLER, BODY)
        await answer.start()
        events = answer.events()
        created = cast(Any, await anext(events))
        while (await anext(events)).type != "response.output_text.delta":
            pass
        await events.aclose()
        await answer.close()
        return str(created.response.id)

    response_id = anyio.run(run)
    with pytest.raises(NotFound):
        stored(database, response_id)
    assert totals(database)[0].output_tokens == 1


def test_the_next_prompt_is_the_whole_conversation(
    database: Database, directory: ModelDirectory
) -> None:
    made = parts(database, directory)

    async def run() -> None:
        first = await responses.answer(made, CALLER, {**BODY, "instructions": "Rule."})
        await responses.answer(made, CALLER, {**BODY, "previous_response_id": first.id})

    anyio.run(run)
    renderer = render_with(directory.base())
    question, answer = {"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "Hello"}
    assert cast(ScriptedEngine, made.engine).prompts == [
        renderer.prompt([{"role": "system", "content": "Rule."}, question]),
        renderer.prompt([question, answer, question]),
    ]


def test_a_request_under_a_known_key_is_not_answered_again(
    database: Database, directory: ModelDirectory
) -> None:
    made = parts(database, directory)

    async def run() -> str:
        # Two at the same moment: both are begun before either is answered.
        first = await responses.begin(made, CALLER, BODY, KEY)
        second = await responses.begin(made, CALLER, {**BODY, "stream": True}, KEY)
        response = await first.whole()
        *_, failed = await events_of(second)
        assert failed.type == "response.failed"
        assert response.id in failed.response.error.message
        with pytest.raises(AlreadyDone) as done:
            await responses.begin(made, CALLER, BODY, KEY)
        assert done.value.object_id == response.id
        await responses.begin(made, CALLER, {**BODY, "store": False}, KEY)  # makes no object
        return str(failed.response.id)

    with pytest.raises(NotFound):
        stored(database, anyio.run(run))


@pytest.mark.parametrize("act", [responses.answer, responses.count])
def test_a_prompt_that_does_not_fit_is_told_of_as_the_input(
    database: Database, directory: ModelDirectory, act: Any
) -> None:
    body = {**BODY, "input": "x" * 12 * (CONTEXT_TOKENS + 2)}
    with pytest.raises(InvalidRequest) as refused:
        anyio.run(act, parts(database, directory), CALLER, body)
    assert (refused.value.param, refused.value.code) == ("input", "context_length_exceeded")


def test_a_count_is_the_prompts(database: Database, directory: ModelDirectory) -> None:
    counted = anyio.run(responses.count, parts(database, directory), CALLER, BODY)
    assert counted.input_tokens == PROMPT_TOKENS
    assert totals(database) == []


# ---- chat completions that are stored


def test_a_completion_is_stored_before_its_last_chunk(
    database: Database, directory: ModelDirectory
) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hi!"}],
        "store": True,
        "metadata": {"a": "b"},
    }

    async def run() -> None:
        answer = await chat.begin(parts(database, directory), CALLER, body, KEY)
        seen = []
        async for told in answer.chunks():
            chunk = told.whole() if isinstance(told, TextChunk) else told
            seen.append(chunk.choices[0].finish_reason)
            if seen[-1] is None:
                with pytest.raises(NotFound):
                    get_completion(database, OURS, chunk.id)
            else:
                kept = get_completion(database, OURS, chunk.id)
        assert seen == [None, None, None, "stop"]
        assert (kept.request, kept.request_id) == (body, "req_1")
        assert kept.response["choices"][0]["message"]["content"] == "Hello"
        with pytest.raises(AlreadyDone):
            await chat.begin(parts(database, directory), CALLER, body, KEY)

    anyio.run(run)
