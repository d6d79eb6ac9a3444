"""Ledger lines: committed when their write returns, in few commits, each for itself."""

import asyncio
import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa

from support.rows import OURS, THEIRS
from tunery.domain.errors import InvalidRequest, Unavailable
from tunery.domain.tenants import Tenant
from tunery.domain.usage import UsageKind, UsageRecord
from tunery.endpoints.ledger import Ledger
from tunery.services.ledger import LedgerLine, write_lines
from tunery.storage.database import Database


def a_line(number: int, tenant: Tenant = OURS, **changes: Any) -> LedgerLine:
    values: dict[str, Any] = {
        "request_id": f"req-{number}",
        "kind": UsageKind.CHAT,
        "model": "tiny",
        "base": "tiny",
        "key_id": "key_1",
        "end_user": None,
        "input_tokens": number,
        "output_tokens": 1,
        "cost_nanodollars": 10,
    }
    return LedgerLine(tenant, UsageRecord(**{**values, **changes}))


def written(database: Database, tenant: Tenant = OURS) -> tuple[int, int]:
    """Return how many lines a tenant's ledger has, and the sum of their input tokens."""
    with database.read() as tx:
        totals = tx.usage(tenant).totals()
    return (totals[0].requests, totals[0].input_tokens) if totals else (0, 0)


def test_a_line_is_committed_when_its_write_returns(database: Database) -> None:
    async def write() -> list[tuple[int, int]]:
        ledger, seen = Ledger(database), []
        for number in (1, 2):
            await ledger.write(a_line(number))
            seen.append(written(database))
        return seen

    assert asyncio.run(write()) == [(1, 1), (2, 3)]


def test_lines_that_come_together_share_commits_and_each_counts_once(database: Database) -> None:
    commits = 0

    @sa.event.listens_for(database.engine, "commit")
    def count(_: object) -> None:
        nonlocal commits
        commits += 1

    async def write() -> None:
        ledger = Ledger(database)
        lines = [a_line(number, OURS if number % 2 else THEIRS) for number in range(200)]
        await asyncio.gather(*(ledger.write(line) for line in [*lines, *lines]))

    asyncio.run(write())
    assert written(database, OURS) == (100, sum(range(1, 200, 2)))
    assert written(database, THEIRS) == (100, sum(range(0, 200, 2)))
    assert commits < 200  # 400 writes, of which those that met a commit shared the next


def test_a_line_that_is_refused_takes_no_other_with_it(database: Database) -> None:
    async def write() -> list[object]:
        ledger = Ledger(database)
        broken: Any = a_line(3, model=None)  # which no row may lack
        lines = [a_line(1), a_line(2), broken, a_line(4)]
        return await asyncio.gather(*map(ledger.write, lines), return_exceptions=True)

    told = asyncio.run(write())
    assert [one is None for one in told] == [True, True, False, True]
    assert isinstance(told[2], sa.exc.IntegrityError | InvalidRequest)
    assert written(database) == (3, 7)


def test_a_locked_sqlite_is_told_and_the_next_line_is_written(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunery.storage.database.BUSY_TIMEOUT_S", 0.1)
    database = Database(sqlite_url)
    other = sqlite3.connect(str(database.url.database), isolation_level=None)

    attempts = []

    def counted(*args: Any) -> None:
        attempts.append(args)
        write_lines(*args)

    monkeypatch.setattr("tunery.endpoints.ledger.write_lines", counted)

    async def write() -> None:
        ledger = Ledger(database)
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.ensure_future(ledger.write(a_line(1)))
        others = [ledger.put(a_line(number)) for number in range(3, 60)]
        told = await asyncio.gather(first, *others, return_exceptions=True)
        assert all(isinstance(one, Unavailable) for one in told)
        assert len(attempts) <= 2  # not one by one: whoever waits is told at once
        other.execute("ROLLBACK")
        await ledger.write(a_line(2))

    asyncio.run(write())
    other.close()
    assert written(database) == (1, 2)
    database.close()


def test_it_outlives_the_loop_that_it_was_used_on(database: Database) -> None:
    ledger = Ledger(database)
    for number in (1, 2):
        asyncio.run(ledger.write(a_line(number)))
    assert written(database) == (2, 3)


def test_what_was_put_is_written_though_its_task_is_broken_off(database: Database) -> None:
    async def write() -> None:
        waiting = asyncio.ensure_future(ledger.write(a_line(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    ledger = Ledger(database)
    asyncio.run(write())
    asyncio.run(ledger.write(a_line(2)))  # the same thread's next line
    assert written(database) == (2, 3)
