"""Keys that are remembered for a moment: found again without the database, and gone in time."""

import asyncio

import pytest

from tunery.api.known_keys import KNOWN_S, KnownKeys
from tunery.domain.errors import Unauthenticated
from tunery.services import accounts
from tunery.services.accounts import FirstAccount
from tunery.storage.database import Database

PEPPER = b"pepper"


@pytest.fixture
def made(database: Database) -> FirstAccount:
    first = accounts.create_first_account(database, PEPPER, "Acme")
    assert first is not None
    return first


def test_a_revoked_key_opens_nothing_once_it_is_no_longer_remembered(
    database: Database, made: FirstAccount
) -> None:
    now = 100.0
    keys = KnownKeys(database, PEPPER, lambda: now)
    new = made.project_key
    assert asyncio.run(keys.authenticate(new.secret)) == new.key
    accounts.revoke_key(database, new.key.id)
    now += KNOWN_S * 0.99
    assert asyncio.run(keys.authenticate(new.secret)) == new.key  # and is not remembered longer
    now += KNOWN_S * 0.02
    with pytest.raises(Unauthenticated):
        asyncio.run(keys.authenticate(new.secret))
    assert KNOWN_S <= 5  # what is promised of a revoked key


def test_a_refusal_is_not_remembered(database: Database, made: FirstAccount) -> None:
    keys = KnownKeys(database, PEPPER)
    for secret in (None, "", "sk-tunery-wrong", made.project_key.secret + "x", "é" * 300):
        for _ in range(2):
            with pytest.raises(Unauthenticated):
                asyncio.run(keys.authenticate(secret))
    later = accounts.create_key(database, PEPPER, made.project_key.key.kind, "later", None)
    assert asyncio.run(keys.authenticate(later.secret)) == later.key


def test_each_secret_finds_its_own_key(database: Database, made: FirstAccount) -> None:
    keys = KnownKeys(database, PEPPER)
    for _ in range(2):
        for new in (made.project_key, made.admin_key):
            assert asyncio.run(keys.authenticate(new.secret)) == new.key


def test_a_remembered_key_is_not_looked_up(database: Database, made: FirstAccount) -> None:
    keys = KnownKeys(database, PEPPER)
    assert asyncio.run(keys.authenticate(made.project_key.secret)) == made.project_key.key
    database.close()
    with database.write() as tx:
        assert tx.accounts.revoke_key(made.project_key.key.id, 1)
    assert asyncio.run(keys.authenticate(made.project_key.secret)) == made.project_key.key
