"""Keys: who they let in, and that no secret is kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tunery.domain.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from tunery.domain.tenants import Administrator, KeyKind
from tunery.services import accounts
from tunery.storage.database import Database
from tunery.storage.tables import metadata

PEPPER = b"p" * 32


def first(database: Database) -> accounts.FirstAccount:
    made = accounts.create_first_account(database, PEPPER, "Acme Corp.")
    assert made is not None
    return made


def test_the_first_start_makes_an_account_and_the_second_none(database: Database) -> None:
    made = first(database)
    assert made.tenant.organization_slug == "acme-corp"
    assert made.project_key.key.kind is KeyKind.PROJECT
    assert made.admin_key.key.kind is KeyKind.ADMIN
    assert accounts.create_first_account(database, PEPPER, "Other") is None
    assert accounts.list_keys(database) == [made.project_key.key, made.admin_key.key]


def test_a_key_opens_its_own_project(database: Database) -> None:
    made = first(database)
    other = accounts.create_project(database, "acme corp", "Second")
    assert other.organization_id == made.tenant.organization_id
    assert other.project_id != made.tenant.project_id
    new = accounts.create_key(database, PEPPER, KeyKind.PROJECT, "second", other.project_id)
    assert accounts.authenticate(database, PEPPER, new.secret) == new.key
    assert accounts.require_project_key(new.key) == other
    assert new.key.hint == new.secret[-4:]
    known = accounts.authenticate(database, PEPPER, made.project_key.secret)
    assert accounts.require_project_key(known) == made.tenant


def test_an_admin_key_is_known_but_opens_no_project(database: Database) -> None:
    key = accounts.authenticate(database, PEPPER, first(database).admin_key.secret)
    with pytest.raises(Forbidden):
        accounts.require_project_key(key)


def test_an_admin_key_speaks_for_its_organization_and_a_project_key_does_not(
    database: Database,
) -> None:
    made = first(database)
    admin = accounts.require_admin_key(made.admin_key.key)
    assert admin == Administrator(made.tenant.organization_id, made.admin_key.key.id)
    with pytest.raises(Forbidden) as refused:
        accounts.require_admin_key(made.project_key.key)
    assert refused.value.code == "insufficient_permissions"


def test_a_project_of_another_organization_is_a_tenant_of_its_own(database: Database) -> None:
    made = first(database)
    other = accounts.create_project(database, "Umbrella", "First")
    assert other.organization_slug == "umbrella"
    assert other.organization_id != made.tenant.organization_id


def test_a_revoked_key_opens_nothing_and_the_others_stay(database: Database) -> None:
    made = first(database)
    accounts.revoke_key(database, made.project_key.key.id)
    with pytest.raises(Unauthenticated):
        accounts.authenticate(database, PEPPER, made.project_key.secret)
    assert accounts.authenticate(database, PEPPER, made.admin_key.secret) == made.admin_key.key
    with pytest.raises(NotFound):
        accounts.revoke_key(database, made.project_key.key.id)


WRONG: dict[str, Callable[[str], str | None]] = {
    "missing": lambda secret: None,
    "empty": lambda secret: "",
    "unknown": lambda secret: "sk-tunery-" + "x" * 43,
    "one letter off": lambda secret: secret[:-1] + ("a" if secret[-1] != "a" else "b"),
    "with a blank behind": lambda secret: secret + " ",
    "long": lambda secret: secret + "x" * 300,
    "very long": lambda secret: "x" * 1_000_000,
    "not ascii": lambda secret: secret[:-1] + "é",
    "half a character": lambda secret: secret + "\ud800",
    "with a NUL": lambda secret: secret + "\0",
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_key_is_refused_without_being_repeated(database: Database, how: str) -> None:
    secret = first(database).project_key.secret
    wrong = WRONG[how](secret)
    with pytest.raises(Unauthenticated) as refused:
        accounts.authenticate(database, PEPPER, wrong)
    assert refused.value.code == ("invalid_api_key" if wrong else None)
    assert secret[:12] not in refused.value.message
    assert len(refused.value.message) < 200


def test_a_key_is_unknown_under_another_pepper(database: Database) -> None:
    secret = first(database).project_key.secret
    with pytest.raises(Unauthenticated):
        accounts.authenticate(database, b"q" * 32, secret)


def test_a_key_for_a_project_that_is_not_there_is_refused(database: Database) -> None:
    with pytest.raises(NotFound):
        accounts.create_key(database, PEPPER, KeyKind.PROJECT, "name", None)
    with pytest.raises(NotFound):
        accounts.create_key(database, PEPPER, KeyKind.PROJECT, "name", "proj_none")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Acme Corp.", "acme-corp"), ("--A  b--", "a-b"), ("x" * 90, "x" * 64), ("Zoë", "zo")],
)
def test_an_organization_has_a_slug_for_model_names(name: str, expected: str) -> None:
    assert accounts.slug(name) == expected


def test_an_organization_without_a_letter_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        accounts.slug("...")


def stored_bytes(database: Database) -> bytes:
    """Return everything that the database keeps: its files' bytes, or every row as text."""
    if database.is_sqlite:
        assert database.url.database is not None
        files = (database.url.database, database.url.database + "-wal")
        return b"".join(Path(file).read_bytes() for file in files)
    text = ""
    with database.engine.connect() as connection:
        for table in metadata.tables:
            query = sa.text(f"SELECT t::text FROM {table} t")  # noqa: S608 - our own name
            text += "".join(row[0] for row in connection.execute(query))
    return text.encode()


def test_no_secret_is_kept_in_clear(database: Database) -> None:
    made = first(database)
    kept = stored_bytes(database)
    for new in (made.project_key, made.admin_key):
        assert new.key.id.encode() in kept  # the search finds what is kept
        body = new.secret.removeprefix("sk-tunery-").removeprefix("admin-")
        for form in (body, body[:-4], body.encode().hex()):
            assert form.encode() not in kept
    assert PEPPER not in kept
