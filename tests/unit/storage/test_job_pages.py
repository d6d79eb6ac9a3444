"""Pages of jobs: found by metadata, and read from an index however many there are."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import event

from support.databases import opened
from support.rows import OURS, THEIRS, a_job
from tunery.domain.errors import InvalidRequest
from tunery.storage.database import Database
from tunery.storage.repositories.jobs import JobRepository

METADATA: dict[str, dict[str, str] | None] = {
    "a": {"team": "blue", "run": "1"},
    "b": {"team": "blue", "run": "2"},
    "c": {"team": "red"},
    "d": None,
    "e": {},
    "f": {"team": "blue", "run": ""},
}


@pytest.fixture
def filled(database: Database) -> Database:
    with database.write() as tx:
        for job_id, metadata in METADATA.items():
            tx.jobs(OURS).add(a_job(job_id, metadata=metadata))
        tx.jobs(THEIRS).add(a_job("g", metadata={"team": "blue"}))
    return database


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, "fedcba"),
        ({"team": "blue"}, "fba"),
        ({"team": "blue", "run": "2"}, "b"),
        ({"run": ""}, "f"),
        ({"team": "green"}, ""),
        ({"team": ""}, ""),
        ({"blue": "team"}, ""),
        ({"team": "red", "run": "1"}, ""),
        (None, "ed"),
    ],
)
def test_jobs_are_found_by_each_pair_of_metadata_or_by_having_none(
    filled: Database, metadata: Mapping[str, str] | None, expected: str
) -> None:
    with filled.read() as tx:
        page = tx.jobs(OURS).page(metadata=metadata, after=None, limit=9)
    assert "".join(job.id for job in page.items) == expected
    assert not page.has_more


def test_pages_of_a_filtered_list_follow_each_other(filled: Database) -> None:
    with filled.read() as tx:
        first = tx.jobs(OURS).page(metadata={"team": "blue"}, after=None, limit=2)
        second = tx.jobs(OURS).page(metadata={"team": "blue"}, after="b", limit=2)
    assert ([job.id for job in first.items], first.has_more) == (["f", "b"], True)
    assert ([job.id for job in second.items], second.has_more) == (["a"], False)
    with filled.read() as tx, pytest.raises(InvalidRequest, match="no id of this list"):
        tx.jobs(OURS).page(metadata={"team": "blue"}, after="c", limit=2)


PAGES: dict[str, Callable[[JobRepository], Any]] = {
    "jobs": lambda jobs: jobs.page(metadata={}, after=None, limit=20),
    "jobs after": lambda jobs: jobs.page(metadata={}, after="a", limit=20),
    "jobs by metadata": lambda jobs: jobs.page(metadata={"a": "b"}, after=None, limit=20),
    "jobs without metadata": lambda jobs: jobs.page(metadata=None, after=None, limit=20),
    "events": lambda jobs: jobs.events("a", after=None, limit=20),
    "checkpoints": lambda jobs: jobs.checkpoints("a", after=None, limit=20),
    "metrics": lambda jobs: jobs.metrics("a"),
    "job": lambda jobs: jobs.get("a"),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_from_an_index_without_scanning_or_sorting(
    sqlite_url: str, name: str
) -> None:
    statements: list[tuple[str, Any]] = []
    with opened(sqlite_url) as database:
        with database.write() as tx:
            tx.jobs(OURS).add(a_job("a"))

        @event.listens_for(database.engine, "before_cursor_execute")
        def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            statements.append((statement, values))

        with database.read() as tx:
            PAGES[name](tx.jobs(OURS))
        asked = [one for one in statements if one[0].startswith("SELECT")]
        assert asked
        with database.read() as tx:
            for statement, values in asked:
                plan = tx._connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, values)
                lines = [row.detail for row in plan]
                assert not [line for line in lines if line.startswith("SCAN") or "B-TREE" in line]
                assert any(line.startswith("SEARCH") and "project_id=?" in line for line in lines)
