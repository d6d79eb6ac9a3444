"""Responses: the conversation they go on from, the prompt that is made, and what is kept."""

import time
from typing import Any

import pytest

from support.rows import CONTEXT_TOKENS, OURS, THEIRS, render_with
from tunery.domain.errors import Conflict, ContextTooLong, InvalidRequest, NotFound
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.responses import StoredResponse
from tunery.services import responses
from tunery.services.answers import Options, PreparedAnswer, check_once
from tunery.services.chat import ChatRequest
from tunery.services.known_models import KnownModels
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database

LATER = int(time.time()) + 3_600
ROOM = 10_000  # characters of context that no test reaches


def item(role: str, text: str) -> dict[str, Any]:
    return {"id": f"msg_{text}", "role": role, "content": [{"text": text}]}


def keep(
    database: Database,
    response_id: str,
    previous_id: str | None = None,
    *,
    expires_at: int = LATER,
    once: OnceKey | None = None,
) -> None:
    response = StoredResponse(
        id=response_id,
        previous_id=previous_id,
        model="tiny",
        input_items=(item("user", f"ask {response_id}"),),
        response={"id": response_id, "output": [item("assistant", f"answer {response_id}")]},
        created_at=1_000,
        expires_at=expires_at,
    )
    responses.store_response(database, OURS, response, once)


def texts(items: Any) -> list[str]:
    return [one["content"][0]["text"] for one in items]


# ---- going on


def test_a_conversation_is_every_question_and_answer_oldest_first(database: Database) -> None:
    keep(database, "1")
    keep(database, "2", "1")
    keep(database, "3", "2")
    items = responses.earlier_items(database, OURS, "3", ROOM)
    assert texts(items) == ["ask 1", "answer 1", "ask 2", "answer 2", "ask 3", "answer 3"]
    assert texts(responses.earlier_items(database, OURS, "1", ROOM)) == ["ask 1", "answer 1"]


def test_of_a_conversation_that_no_context_holds_the_newest_part_is_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "_TOKEN_CHARACTERS", 1)
    for number in range(1, 6):
        keep(database, str(number), str(number - 1) if number > 1 else None)
    each = len("ask 1") + len("answer 1")
    read = texts(responses.earlier_items(database, OURS, "5", 2 * each))
    assert read == ["ask 3", "answer 3", "ask 4", "answer 4", "ask 5", "answer 5"]


@pytest.mark.parametrize("how", ["unknown", "foreign", "deleted", "expired"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_conversation_with_a_part_missing_is_not_gone_on_from(
    database: Database, how: str, deep: bool
) -> None:
    tenant = THEIRS if how == "foreign" else OURS
    if how != "unknown":
        keep(database, "resp_1", expires_at=1 if how == "expired" else LATER)
    if deep:
        keep(database, "resp_2", "resp_1")
    if how == "deleted":
        responses.delete_response(database, OURS, "resp_1")
    asked = "resp_2" if deep else "resp_1"
    missing = asked if how == "foreign" else "resp_1"
    with pytest.raises(InvalidRequest) as refused:
        responses.earlier_items(database, tenant, asked, ROOM)
    assert refused.value.message == f"Previous response with id '{missing}' not found."
    assert refused.value.param == "previous_response_id"
    assert refused.value.code == "previous_response_not_found"


# ---- the prompt


def prepare(
    database: Database,
    directory: ModelDirectory,
    texts: list[tuple[str, str]],
    *,
    instructions: str | None = None,
    truncate: bool = False,
    max_tokens: int = 16,
) -> PreparedAnswer:
    messages = [{"role": role, "content": text} for role, text in texts]
    return responses.prepare_response(
        KnownModels(database, directory),
        render_with,
        CONTEXT_TOKENS,
        OURS,
        ChatRequest("tiny", messages, Options(max_tokens=max_tokens)),
        instructions=instructions,
        truncate=truncate,
    )


def of_message(role: str, text: str) -> int:
    """Return the tokens of a message: "<s>role\\ntext<e>\\n", a token a byte and a mark."""
    return 1 + len(role) + 1 + len(text) + 1 + 1


OPENING = 1 + len("assistant\n")  # what asks for the answer


def test_instructions_stand_before_the_conversation(
    database: Database, directory: ModelDirectory
) -> None:
    prepared = prepare(database, directory, [("user", "Hi!")], instructions="Rule.")
    plain = prepare(database, directory, [("system", "Rule."), ("user", "Hi!")])
    assert prepared.generations == plain.generations
    tokens = of_message("system", "Rule.") + of_message("user", "Hi!") + OPENING
    assert prepared.prompt_tokens == tokens


def test_as_many_of_the_oldest_messages_are_cut_as_must_be(
    database: Database, directory: ModelDirectory
) -> None:
    turns = [("user", "question"), ("assistant", "answered")]
    fixed = of_message("system", "Rule.") + of_message("user", "last?") + OPENING
    turn = of_message("user", "question") + of_message("assistant", "answered")
    room = CONTEXT_TOKENS - 16 - fixed
    fitting = room // turn
    assert fitting > 1
    long = [*turns * (fitting + 3), ("user", "last?")]
    with pytest.raises(ContextTooLong):
        prepare(database, directory, long, instructions="Rule.")
    cut = prepare(database, directory, long, instructions="Rule.", truncate=True)
    kept = [*turns * fitting, ("user", "last?")]
    assert cut.generations == prepare(database, directory, kept, instructions="Rule.").generations
    assert cut.prompt_tokens == fixed + fitting * turn
    # What fits is not cut, however close it comes.
    whole = prepare(database, directory, kept, instructions="Rule.", truncate=True)
    assert whole.prompt_tokens == cut.prompt_tokens


def test_what_does_not_fit_by_itself_is_refused_all_the_same(
    database: Database, directory: ModelDirectory
) -> None:
    for messages in (
        [("user", "x" * CONTEXT_TOKENS)],
        [("user", "hi"), ("assistant", "hi"), ("user", "x" * CONTEXT_TOKENS)],
    ):
        with pytest.raises(ContextTooLong):
            prepare(database, directory, messages, truncate=True)


def test_a_prompt_is_counted_as_it_would_be_made(
    database: Database, directory: ModelDirectory
) -> None:
    models = KnownModels(database, directory)

    def count(text: str) -> int:
        messages = [{"role": "user", "content": text}]
        return responses.count_tokens(
            KnownModels(database, directory), render_with, OURS, "tiny", messages
        )

    assert count("Hi!") == of_message("user", "Hi!") + OPENING
    long = "x" * CONTEXT_TOKENS
    assert count(long) == of_message("user", long) + OPENING
    with pytest.raises(ContextTooLong):  # 12 characters are the longest token
        count("x" * 12 * (CONTEXT_TOKENS + 2))
    with pytest.raises(NotFound):
        responses.count_tokens(models, render_with, OURS, "none", [])


# ---- kept


def test_a_response_is_kept_once_under_its_key(database: Database) -> None:
    key, other = OnceKey(b"k" * 32, b"r" * 32), OnceKey(b"k" * 32, b"s" * 32)
    now = int(time.time())
    with database.write() as tx:
        tx.once(OURS).record(key, "resp_1", now)
    keep(database, "resp_1")
    with pytest.raises(AlreadyDone) as done:
        check_once(database, OURS, key)
    with pytest.raises(AlreadyDone) as done_again:
        keep(database, "resp_2", once=key)
    assert done.value.object_id == done_again.value.object_id == "resp_1"
    with pytest.raises(Conflict):
        check_once(database, OURS, other)
    check_once(database, THEIRS, key)
    with pytest.raises(NotFound):
        responses.get_response(database, OURS, "resp_2")


@pytest.mark.parametrize("act", [responses.get_response, responses.delete_response])
def test_anothers_response_is_not_found_as_an_unknown_one(database: Database, act: Any) -> None:
    keep(database, "resp_1")
    for tenant, name in ((THEIRS, "resp_1"), (OURS, "resp_x")):
        with pytest.raises(NotFound) as refused:
            act(database, tenant, name)
        assert refused.value.message == f"Response with id '{name}' not found."
        assert (refused.value.param, refused.value.code) == (None, None)
    assert responses.get_response(database, OURS, "resp_1").id == "resp_1"


def test_what_a_response_was_made_from_is_listed_as_far_as_it_is_there(database: Database) -> None:
    keep(database, "1")
    keep(database, "2", "1")
    keep(database, "3", "2")

    def listed(**query: Any) -> list[str]:
        asked: dict[str, Any] = {"after": None, "limit": 9, "order": "asc", **query}
        return texts(responses.list_input_items(database, OURS, "3", **asked).items)

    assert listed() == ["ask 1", "answer 1", "ask 2", "answer 2", "ask 3"]
    assert listed(order="desc", limit=2) == ["ask 3", "answer 2"]
    assert listed(order="desc", after="msg_answer 2", limit=2) == ["ask 2", "answer 1"]
    responses.delete_response(database, OURS, "1")
    assert listed() == ["ask 2", "answer 2", "ask 3"]
    with pytest.raises(NotFound):
        responses.list_input_items(database, THEIRS, "3", after=None, limit=9, order="asc")
