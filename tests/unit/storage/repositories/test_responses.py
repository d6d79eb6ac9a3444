"""Stored responses: each project's own, until their time is over."""

import dataclasses
from typing import Any

import sqlalchemy as sa

from support.rows import OURS, THEIRS
from tunery.domain.responses import StoredResponse, text_length
from tunery.storage.database import Database
from tunery.storage.tables import responses

SECRET = "a secret of the tenant"


def message(role: str, *texts: str) -> dict[str, Any]:
    return {"id": "msg_1", "role": role, "content": [{"text": text} for text in texts]}


def a_response(response_id: str = "resp_1", **changes: Any) -> StoredResponse:
    response = StoredResponse(
        id=response_id,
        previous_id="resp_0",
        model="tiny",
        input_items=(message("user", SECRET),),
        response={"id": response_id, "output": [message("assistant", SECRET)]},
        created_at=1_000,
        expires_at=2_000,
    )
    return dataclasses.replace(response, **changes)


def test_a_response_is_its_projects_until_its_time_is_over(database: Database) -> None:
    with database.write() as tx:
        tx.responses(OURS).add(a_response())
        assert tx.responses(OURS).get("resp_1", 1_999) == a_response()
        assert tx.responses(OURS).get("resp_1", 2_000) is None
        assert tx.responses(THEIRS).get("resp_1", 1_999) is None
        assert tx.responses(OURS).get("resp_2", 1_999) is None


def test_the_same_id_in_two_projects_is_two_responses(database: Database) -> None:
    theirs = a_response(model="theirs", previous_id=None)
    with database.write() as tx:
        tx.responses(OURS).add(a_response())
        tx.responses(THEIRS).add(theirs)
        tx.responses(OURS).delete("resp_1")
        assert tx.responses(OURS).get("resp_1", 1) is None
        assert tx.responses(THEIRS).get("resp_1", 1) == theirs


def test_every_projects_responses_end_with_their_time_and_no_others(database: Database) -> None:
    with database.write() as tx:
        for tenant in (OURS, THEIRS):
            tx.responses(tenant).add(a_response("resp_old"))
            tx.responses(tenant).add(a_response("resp_new", expires_at=2_001))
        assert tx.remove_expired_responses(1_999) == 0
        assert tx.remove_expired_responses(2_000) == 2
        assert tx.remove_expired_responses(2_000) == 0
        for tenant in (OURS, THEIRS):
            assert tx.responses(tenant).get("resp_old", 1) is None
            assert tx.responses(tenant).get("resp_new", 1) is not None


def test_what_a_tenant_wrote_stands_in_sealed_columns_only(database: Database) -> None:
    with database.write() as tx:
        tx.responses(OURS).add(a_response())
    plain = [column for column in responses.c if column.name not in ("input_items", "response")]
    with database.engine.connect() as connection:
        row = connection.execute(sa.select(*plain)).one()
        sealed = connection.execute(sa.text("SELECT input_items, response FROM responses")).one()
    assert SECRET not in str(tuple(row))
    assert all(isinstance(value, bytes | memoryview) for value in sealed)


def test_a_conversation_goes_on_from_input_and_output_together() -> None:
    response = a_response(input_items=(message("user", "four", ""), message("user")))
    assert [item["role"] for item in response.items] == ["user", "user", "assistant"]
    assert text_length(response.items) == len("four") + len(SECRET)
