"""A lease is renewed while its task is worked on, and its loss is noticed."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from support.databases import opened
from support.rows import OURS, wait_for
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.storage import database as database_module
from tunery.storage.database import Database
from tunery.storage.tables import tasks
from tunery.worker.lease import Lease, Stopping


def claim(database: Database, lease_s: float) -> Task:
    with database.write() as tx:
        tx.queue.add(OURS, TaskKind.TRAIN_JOB, "ftjob-1")
        task = tx.queue.claim([TaskKind.TRAIN_JOB], lease_s)
    assert task is not None
    return task


def lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLost:
        return True
    return False


def lease_until(database: Database) -> float:
    with database.read() as tx:
        return float(tx._connection.execute(sa.select(tasks.c.lease_until)).scalar_one() or 0)


def test_a_lease_is_renewed_again_and_again(database: Database) -> None:
    task = claim(database, 1.0)
    seen = [lease_until(database)]
    with Lease(database, task, 1.0, threading.Event()) as lease:
        for _ in range(2):
            wait_for(lambda: lease_until(database) > seen[-1], "a renewal")
            seen.append(lease_until(database))
        lease.check()
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


def test_a_task_that_was_dropped_is_noticed(database: Database) -> None:
    task = claim(database, 1.0)
    with Lease(database, task, 1.0, threading.Event()) as lease:
        lease.check()
        with database.write() as tx:
            tx.queue.drop(OURS, "ftjob-1")
        wait_for(lambda: lost(lease), "the loss of a dropped task")


def test_a_task_that_another_worker_claimed_is_noticed(database: Database) -> None:
    task = claim(database, -1.0)
    with database.write() as tx:
        assert tx.queue.claim([TaskKind.TRAIN_JOB], 60) is not None
    with Lease(database, task, 1.0, threading.Event()) as lease:
        wait_for(lambda: lost(lease), "the loss of a task that another worker has")


def test_a_lease_is_given_up_where_the_database_does_not_answer_for_its_length(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    with opened(sqlite_url) as database, opened(sqlite_url) as other:
        task = claim(database, 0.4)
        with other.write(), Lease(database, task, 0.4, threading.Event()) as lease:
            wait_for(lambda: lost(lease), "the loss of a lease that could not be renewed")


def test_a_worker_that_is_to_stop_is_told(sqlite_url: str, tmp_path: Path) -> None:
    stopping = threading.Event()
    with opened(sqlite_url) as database:
        task = claim(database, 60)
        with Lease(database, task, 60, stopping) as lease:
            lease.check()
            stopping.set()
            with pytest.raises(Stopping):
                lease.check()


def test_a_worker_whose_job_is_paused_is_told_to_yield_and_keeps_its_task(
    database: Database,
) -> None:
    task = claim(database, 60)
    with Lease(database, task, 2.0, threading.Event()) as lease:
        assert not lease.is_to_yield
        with database.write() as tx:
            assert tx.queue.pause(OURS, TaskKind.TRAIN_JOB, "ftjob-1")
        wait_for(lambda: lease.is_to_yield, "the wish that the task be given back")
        lease.check()
