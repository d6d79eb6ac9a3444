"""Stored completions: each project's own, found by model and metadata."""

import dataclasses
from typing import Any

import pytest

from support.rows import OURS, THEIRS
from tunery.domain.errors import InvalidRequest
from tunery.domain.stored_completions import StoredCompletion
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Page, cut_page
from tunery.storage.transaction import Transaction


def a_completion(completion_id: str = "chatcmpl-1", **changes: Any) -> StoredCompletion:
    completion = StoredCompletion(
        id=completion_id,
        model="tiny",
        metadata={"team": "blue"},
        request_id="req_1",
        request={"messages": [{"role": "user", "content": "hi"}]},
        response={"id": completion_id},
        created_at=1_000,
    )
    return dataclasses.replace(completion, **changes)


def found(tx: Transaction, **query: Any) -> list[str]:
    asked: dict[str, Any] = {"model": None, "metadata": {}, "after": None, "limit": 9}
    page = tx.stored_completions(OURS).page(**{**asked, "order": "asc", **query})
    return [one.id for one in page.items]


def test_a_completion_is_read_as_it_was_written_by_its_project_only(database: Database) -> None:
    with database.write() as tx:
        tx.stored_completions(OURS).add(a_completion())
        assert tx.stored_completions(OURS).get("chatcmpl-1") == a_completion()
        assert tx.stored_completions(THEIRS).get("chatcmpl-1") is None
        tx.stored_completions(THEIRS).delete("chatcmpl-1")
        tx.stored_completions(THEIRS).set_metadata("chatcmpl-1", {"x": "y"})
        assert tx.stored_completions(OURS).get("chatcmpl-1") == a_completion()
        assert found(tx, metadata={"team": "blue"}) == ["chatcmpl-1"]


def test_completions_are_found_by_model_and_by_all_their_pairs(database: Database) -> None:
    with database.write() as tx:
        completions = tx.stored_completions(OURS)
        completions.add(a_completion("a", metadata={"team": "blue", "n": "1"}))
        completions.add(a_completion("b", metadata={"team": "blue", "n": "2"}, model="other"))
        completions.add(a_completion("c", metadata={}))
        completions.add(a_completion("d", metadata=None))
        tx.stored_completions(THEIRS).add(a_completion("a"))
        assert found(tx) == ["a", "b", "c", "d"]
        assert found(tx, order="desc", limit=2) == ["d", "c"]
        assert found(tx, after="b") == ["c", "d"]
        assert found(tx, model="other") == ["b"]
        assert found(tx, metadata={"team": "blue"}) == ["a", "b"]
        assert found(tx, metadata={"team": "blue", "n": "2"}) == ["b"]
        assert found(tx, metadata={"team": "2"}) == []
        assert found(tx, metadata=None) == ["c", "d"]
        assert found(tx, metadata=None, model="other") == []


def test_new_metadata_takes_the_place_of_the_old(database: Database) -> None:
    with database.write() as tx:
        completions = tx.stored_completions(OURS)
        completions.add(a_completion())
        completions.set_metadata("chatcmpl-1", {"team": "red"})
        assert found(tx, metadata={"team": "blue"}) == []
        assert found(tx, metadata={"team": "red"}) == ["chatcmpl-1"]
        completions.set_metadata("chatcmpl-1", {})
        assert found(tx, metadata=None) == ["chatcmpl-1"]
        completions.set_metadata("chatcmpl-1", {"team": "red"})
        completions.delete("chatcmpl-1")
        completions.add(a_completion(metadata=None))
        assert found(tx, metadata={"team": "red"}) == []  # nothing of the deleted one is left


def test_a_list_at_hand_is_cut_as_a_table_is() -> None:
    ids = ["a", "b", "c"]
    assert cut_page("ABC", ids, after=None, limit=2, order="asc") == Page(("A", "B"), True)
    assert cut_page("ABC", ids, after="a", limit=2, order="asc") == Page(("B", "C"), False)
    assert cut_page("ABC", ids, after=None, limit=2, order="desc") == Page(("C", "B"), True)
    assert cut_page("ABC", ids, after="b", limit=2, order="desc") == Page(("A",), False)
    assert cut_page("ABC", ids, after="c", limit=2, order="asc") == Page((), False)
    with pytest.raises(InvalidRequest) as refused:
        cut_page("ABC", ids, after="x", limit=2, order="asc")
    assert refused.value.param == "after"
