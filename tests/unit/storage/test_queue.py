"""The queue: one worker at a time holds a task, and a worker that lost one can write nothing."""

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from support.rows import OURS, THEIRS
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.storage.database import Database
from tunery.storage.queue import Queue
from tunery.storage.tables import tasks

KINDS = (TaskKind.TRAIN_JOB,)


def add(database: Database, *subjects: str, kind: TaskKind = TaskKind.TRAIN_JOB) -> None:
    with database.write() as tx:
        for subject in subjects:
            tx.queue.add(OURS, kind, subject)


def claim(database: Database, lease_s: float = 60) -> Task | None:
    with database.write() as tx:
        return tx.queue.claim(KINDS, lease_s)


def claimed(database: Database, lease_s: float = 60) -> Task:
    task = claim(database, lease_s)
    assert task is not None
    return task


def column(database: Database, name: str) -> list[float | None]:
    with database.read() as tx:
        query = sa.select(tasks.c[name]).order_by(tasks.c.id)
        return list(tx._connection.execute(query).scalars())


def make_due(database: Database, **values: float) -> None:
    """Move a task's times into the past, as waiting would."""
    with database.write() as tx:
        tx._connection.execute(tasks.update().values(**values))


def test_tasks_are_claimed_oldest_first_with_all_they_carry(database: Database) -> None:
    add(database, "ftjob-1", "ftjob-2")
    first, second = claimed(database), claimed(database)
    assert (first.subject, first.kind, first.tenant, first.fence) == (
        "ftjob-1",
        TaskKind.TRAIN_JOB,
        OURS,
        1,
    )
    assert second.subject == "ftjob-2"
    assert claim(database) is None


def test_only_the_kinds_asked_for_are_claimed(database: Database) -> None:
    add(database, "file-1", kind=TaskKind.CHECK_FILE)
    with database.write() as tx:
        assert not tx.queue.has_free(KINDS)
        assert tx.queue.claim(KINDS, 60) is None
        assert tx.queue.has_free([TaskKind.TRAIN_JOB, TaskKind.CHECK_FILE])
        found = tx.queue.claim([TaskKind.TRAIN_JOB, TaskKind.CHECK_FILE], 60)
    assert found is not None
    assert found.kind is TaskKind.CHECK_FILE


def test_ten_threads_claim_two_hundred_tasks_once_each(database: Database) -> None:
    subjects = [f"ftjob-{number}" for number in range(200)]
    add(database, *subjects)
    start = threading.Barrier(10)
    taken: list[list[str]] = [[] for _ in range(10)]
    errors: list[BaseException] = []

    def work(mine: list[str]) -> None:
        try:
            start.wait(timeout=30)
            while len(mine) < 200:
                with database.read() as tx:
                    if not tx.queue.has_free(KINDS):
                        return
                task = claim(database)
                if task is not None:
                    mine.append(task.subject)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Counter(subject for mine in taken for subject in mine) == Counter(subjects)
    assert column(database, "fence") == [1] * 200


def test_a_claim_passes_over_a_row_that_another_transaction_has_locked(
    postgresql_url: str,
) -> None:
    database = Database(postgresql_url)
    try:
        add(database, "ftjob-1", "ftjob-2")
        with database.write() as first, database.write() as second:
            one, two = first.queue.claim(KINDS, 60), second.queue.claim(KINDS, 60)
        assert one is not None
        assert two is not None
        assert (one.subject, two.subject) == ("ftjob-1", "ftjob-2")
    finally:
        database.close()


OLD_HOLDER: dict[str, Callable[[Queue, Task], object]] = {
    "hold": lambda queue, task: queue.hold(task),
    "renew": lambda queue, task: queue.renew(task, 60),
    "finish": lambda queue, task: queue.finish(task),
}


@pytest.mark.parametrize("act", OLD_HOLDER)
def test_an_expired_lease_is_claimed_again_and_its_old_holder_has_lost_it(
    database: Database, act: str
) -> None:
    add(database, "ftjob-1")
    old = claimed(database, lease_s=-1)
    new = claimed(database)
    assert new == dataclasses.replace(old, fence=2, failures=1)  # its holder fell silent
    with pytest.raises(LeaseLost), database.write() as tx:
        OLD_HOLDER[act](tx.queue, old)
    with database.write() as tx:
        tx.queue.put_back(old, 0)  # changes nothing either
    assert claim(database) is None
    with database.write() as tx:
        tx.queue.hold(new)
        OLD_HOLDER[act](tx.queue, new)


def test_a_lease_that_runs_is_not_claimed(database: Database) -> None:
    add(database, "ftjob-1")
    claimed(database, lease_s=60)
    with database.read() as tx:
        assert not tx.queue.has_free(KINDS)
    assert claim(database) is None


def test_a_renewed_lease_is_not_claimed(database: Database) -> None:
    add(database, "ftjob-1")
    task = claimed(database, lease_s=-1)
    with database.write() as tx:
        tx.queue.renew(task, 60)
    assert claim(database) is None


def test_a_lost_hold_rolls_back_what_its_transaction_wrote(database: Database) -> None:
    add(database, "ftjob-1")
    old = claimed(database, lease_s=-1)
    claimed(database)
    with pytest.raises(LeaseLost), database.write() as tx:  # noqa: PT012 - both are one act
        tx.queue.add(OURS, TaskKind.CHECK_FILE, "file-1")
        tx.queue.hold(old)
    with database.read() as tx:
        assert not tx.queue.has_free([TaskKind.CHECK_FILE])


def test_a_task_put_back_is_free_after_its_delay(database: Database) -> None:
    add(database, "ftjob-1")
    with database.write() as tx:
        task = tx.queue.claim(KINDS, 60)
        assert task is not None
        tx.queue.put_back(task, 3600)
    assert claim(database) is None
    (until,) = column(database, "run_after")
    make_due(database, run_after=(until or 0) - 3601)
    assert claimed(database) == dataclasses.replace(task, fence=2)  # no failure
    with pytest.raises(LeaseLost), database.write() as tx:
        tx.queue.hold(task)


def test_a_task_put_back_without_delay_is_free_at_once(database: Database) -> None:
    add(database, "ftjob-1")
    task = claimed(database)
    with database.write() as tx:
        tx.queue.put_back(task, 0, failed=True)
    assert claimed(database) == dataclasses.replace(task, fence=2, failures=1)


def test_a_finished_task_is_gone(database: Database) -> None:
    add(database, "ftjob-1")
    task = claimed(database)
    with database.write() as tx:
        tx.queue.finish(task)
    with pytest.raises(LeaseLost), database.write() as tx:
        tx.queue.finish(task)
    assert column(database, "id") == []


def test_a_dropped_task_is_lost_to_its_holder_and_others_stay(database: Database) -> None:
    add(database, "ftjob-1", "ftjob-2")
    held = claimed(database)
    with database.write() as tx:
        tx.queue.drop(THEIRS, "ftjob-1")  # another project's word changes nothing
        tx.queue.hold(held)
        tx.queue.drop(OURS, "ftjob-1")
    with pytest.raises(LeaseLost), database.write() as tx:
        tx.queue.renew(held, 60)
    assert claimed(database).subject == "ftjob-2"


def test_only_tasks_that_nobody_works_on_are_dropped_as_idle(database: Database) -> None:
    def drop(*kinds: TaskKind) -> bool:
        with database.write() as tx:
            return tx.queue.drop_idle(OURS, kinds, "batch_1")

    with database.write() as tx:
        tx.queue.add(THEIRS, TaskKind.RUN_BATCH, "batch_1")
        tx.queue.add(OURS, TaskKind.RUN_BATCH, "batch_2")
    before = column(database, "subject")
    assert not drop(TaskKind.RUN_BATCH)

    add(database, "batch_1")
    assert not drop(TaskKind.RUN_BATCH)  # of another kind
    task = claimed(database)
    assert not drop(TaskKind.TRAIN_JOB)  # somebody works on it
    with database.write() as tx:
        tx.queue.put_back(task, 60.0)
    assert drop(TaskKind.TRAIN_JOB)  # waits, though it is not due

    add(database, "batch_1")
    claimed(database)
    with database.write() as tx:
        silent = tasks.update().where(tasks.c.subject == "batch_1", tasks.c.kind == KINDS[0])
        tx._connection.execute(silent.values(lease_until=1.0))
    assert drop(TaskKind.TRAIN_JOB)  # its worker fell silent
    assert column(database, "subject") == before
