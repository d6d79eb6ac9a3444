"""The choices of one request: what was made is charged once, however the request ends."""

import asyncio
import threading

import pytest
import sqlalchemy as sa

from support.rows import OURS, a_model
from support.scripted import scripted_parts
from tunery.domain.errors import NotFound, Unavailable
from tunery.domain.ports.engine import Delta
from tunery.domain.tenants import Caller
from tunery.endpoints import chat, completions
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database

CALLER = Caller(OURS, "key_1", "req_1")
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hi!"}]}


def charged(database: Database) -> list[int]:
    with database.read() as tx:
        return [total.output_tokens for total in tx.usage(OURS).totals()]


def test_a_cancel_while_the_ledger_is_written_loses_no_line(
    database: Database, directory: ModelDirectory
) -> None:
    committing, go_on = threading.Event(), threading.Event()

    @sa.event.listens_for(database.engine, "commit")
    def hold(_: object) -> None:
        if threading.current_thread().name.startswith("ledger"):
            committing.set()
            assert go_on.wait(30)

    async def run() -> None:
        begun = await chat.begin(scripted_parts(database, directory), CALLER, BODY)
        answer = asyncio.ensure_future(begun.whole())
        assert await asyncio.to_thread(committing.wait, 30)
        answer.cancel()
        await asyncio.sleep(0)  # the cancel has arrived
        assert not answer.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await answer
        assert charged(database) == [3]

    asyncio.run(run())


def test_what_fails_is_not_charged(database: Database, directory: ModelDirectory) -> None:
    parts = scripted_parts(database, directory, Delta("Hel", 1), Unavailable("gone"))
    with pytest.raises(Unavailable):
        asyncio.run(chat.answer(parts, CALLER, BODY))
    assert charged(database) == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_deleted_before_its_adapter_was_loaded_is_an_unknown_one(
    database: Database, directory: ModelDirectory, stream: bool
) -> None:
    tuned = a_model(base_digest=directory.base().digest)
    with database.write() as tx:
        tx.models(OURS).add(tuned)
    missing = Unavailable("The files are missing.", code="model_files_missing")

    async def ask() -> None:
        begun = await chat.begin(
            scripted_parts(database, directory, missing), CALLER, {**BODY, "model": tuned.name}
        )
        if deleted:
            with database.write() as tx:
                tx.models(OURS).delete(tuned.name)
        await (begun.start() if stream else begun.whole())

    deleted = False
    with pytest.raises(Unavailable, match="missing"):  # a fault of ours: the model is still there
        asyncio.run(ask())
    deleted = True
    with pytest.raises(NotFound) as caught:
        asyncio.run(ask())
    assert caught.value.code == "model_not_found"
    assert charged(database) == []


def test_each_choice_is_made_and_all_are_charged_together(
    database: Database, directory: ModelDirectory
) -> None:
    parts = scripted_parts(database, directory)
    made = asyncio.run(chat.answer(parts, CALLER, {**BODY, "n": 20}))  # more than run at once
    assert [choice.message.content for choice in made.choices] == ["Hello"] * 20
    assert charged(database) == [60]


def test_tokens_of_the_prompt_that_were_used_again_are_told_and_charged_as_any(
    database: Database, directory: ModelDirectory
) -> None:
    parts = scripted_parts(
        database, directory, Delta("Hel", 1, cached_tokens=2), Delta("lo", 3, "stop", (), 2)
    )
    usage = asyncio.run(chat.answer(parts, CALLER, BODY)).usage
    assert usage is not None
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert usage.total_tokens == usage.prompt_tokens + 3
    assert charged(database) == [3]
    several = {"model": BODY["model"], "prompt": ["ab", "ab", "abc"], "n": 2}
    told = asyncio.run(completions.answer(parts, CALLER, several)).usage
    assert told is not None
    assert told.prompt_tokens_details.cached_tokens == 2 + 2  # two texts, each computed once
