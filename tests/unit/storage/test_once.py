"""Idempotency-Keys: what is noted in the transaction that makes an object."""

from contextlib import suppress

import pytest

from support.rows import OURS, THEIRS
from tunery.domain.errors import Conflict
from tunery.domain.once import KEPT_S, AlreadyDone, OnceKey
from tunery.storage.database import Database

KEY = OnceKey(b"k" * 32, b"r" * 32)
OTHER_REQUEST = OnceKey(b"k" * 32, b"s" * 32)
NOW = 1_700_000_000


def record(database: Database, once: OnceKey | None, object_id: str, now: int = NOW) -> None:
    with database.write() as tx:
        tx.once(OURS).record(once, object_id, now)


def test_the_same_request_is_told_what_the_first_one_made(database: Database) -> None:
    record(database, KEY, "file-1")
    with pytest.raises(AlreadyDone) as done:
        record(database, KEY, "file-2")
    assert done.value.object_id == "file-1"


def test_another_request_under_the_same_key_is_refused(database: Database) -> None:
    record(database, KEY, "file-1")
    with pytest.raises(Conflict) as refused:
        record(database, OTHER_REQUEST, "file-2")
    assert refused.value.code == "idempotency_key_reused"


def test_a_creation_that_fails_leaves_its_key_free(database: Database) -> None:
    with suppress(RuntimeError), database.write() as tx:
        tx.once(OURS).record(KEY, "file-1", NOW)
        raise RuntimeError("the object could not be made")
    record(database, KEY, "file-2")


def test_without_a_key_nothing_is_noted(database: Database) -> None:
    record(database, None, "file-1")
    record(database, None, "file-2")


def test_a_key_is_a_projects_own(database: Database) -> None:
    record(database, KEY, "file-1")
    with database.write() as tx:
        tx.once(THEIRS).record(OTHER_REQUEST, "file-1", NOW)


def test_a_key_is_forgotten_after_a_day(database: Database) -> None:
    record(database, KEY, "file-1")
    with pytest.raises(AlreadyDone):
        record(database, KEY, "file-2", NOW + KEPT_S - 1)
    record(database, OTHER_REQUEST, "file-3", NOW + KEPT_S)
    with database.write() as tx:
        assert tx.forget_old_keys(NOW + 2 * KEPT_S - 1) == 0
        assert tx.forget_old_keys(NOW + 2 * KEPT_S) == 1
