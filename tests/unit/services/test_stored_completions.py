"""Stored completions as their owners see them."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from support.rows import OURS, THEIRS
from tunery.domain.errors import NotFound
from tunery.domain.once import AlreadyDone, OnceKey
from tunery.domain.stored_completions import StoredCompletion
from tunery.services import stored_completions
from tunery.storage.database import Database

MESSAGES = [{"role": "user", "content": text} for text in ("one", "two", "three")]


def keep(database: Database, completion_id: str = "c", once: OnceKey | None = None) -> None:
    completion = StoredCompletion(
        id=completion_id,
        model="tiny",
        metadata={"team": "blue"},
        request_id="req_1",
        request={"messages": MESSAGES},
        response={"id": completion_id},
        created_at=int(time.time()),
    )
    stored_completions.store_completion(database, OURS, completion, once)


ALL: dict[str, Any] = {"after": None, "limit": 9, "order": "asc"}
ACTS: dict[str, Callable[[Database, Any, str], Any]] = {
    "get": stored_completions.get_completion,
    "delete": stored_completions.delete_completion,
    "update": lambda db, tenant, name: stored_completions.update_completion(db, tenant, name, {}),
    "messages": lambda db, tenant, name: stored_completions.list_messages(db, tenant, name, **ALL),
}


@pytest.mark.parametrize("act", ACTS)
def test_anothers_completion_is_not_found_as_an_unknown_one(database: Database, act: str) -> None:
    keep(database)
    for tenant, name in ((THEIRS, "c"), (OURS, "x")):
        with pytest.raises(NotFound) as refused:
            ACTS[act](database, tenant, name)
        assert refused.value.message == f"Chat completion {name} not found."
    assert stored_completions.get_completion(database, OURS, "c").metadata == {"team": "blue"}


def test_a_completion_is_kept_once_under_its_key(database: Database) -> None:
    key = OnceKey(b"k" * 32, b"r" * 32)
    keep(database, "first", key)
    with pytest.raises(AlreadyDone) as done:
        keep(database, "second", key)
    assert done.value.object_id == "first"
    page = stored_completions.list_completions(database, OURS, model=None, metadata={}, **ALL)
    assert [one.id for one in page.items] == ["first"]


def test_messages_are_numbered_in_their_order(database: Database) -> None:
    keep(database)
    page = stored_completions.list_messages(database, OURS, "c", after="c-0", limit=1, order="asc")
    assert (page.items, page.has_more) == ((("c-1", MESSAGES[1]),), True)
    page = stored_completions.list_messages(database, OURS, "c", after=None, limit=9, order="desc")
    assert [name for name, _ in page.items] == ["c-2", "c-1", "c-0"]


def test_updated_and_deleted(database: Database) -> None:
    keep(database)
    updated = stored_completions.update_completion(database, OURS, "c", {"team": "red"})
    assert updated.metadata == {"team": "red"}
    assert stored_completions.update_completion(database, OURS, "c", None).metadata is None
    stored_completions.delete_completion(database, OURS, "c")
    with pytest.raises(NotFound):
        stored_completions.get_completion(database, OURS, "c")
