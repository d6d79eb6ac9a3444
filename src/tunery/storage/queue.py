"""The queue of background tasks: leased to one worker at a time, fenced against the others.

A claim takes the oldest task that waits, or one whose lease ran out, and raises its fence. A
write that belongs to a task first calls `hold`: if the fence has moved on, the writer has lost
the task, and its transaction is rolled back.

A paused task is claimed by nobody. Whoever holds it when it is paused keeps it, lease and fence,
until it gives the task back; if it is resumed before that, it yields: it is claimed again once its
holder has given it back or has fallen silent.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.domain.tenants import Tenant
from tunery.storage.clock import database_now
from tunery.storage.tables import tasks

QUEUED, RUNNING, PAUSED, YIELDING = "queued", "running", "paused", "yielding"


class Queue:
    """The tasks of every tenant; each carries its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, tenant: Tenant, kind: TaskKind, subject: str) -> None:
        """Queue a task, in the transaction of the change that it follows from."""
        self._connection.execute(
            tasks.insert().values(
                kind=kind,
                subject=subject,
                organization_id=tenant.organization_id,
                organization_slug=tenant.organization_slug,
                project_id=tenant.project_id,
                state=QUEUED,
                fence=0,
                failures=0,
                run_after=database_now(),
            )
        )

    def has_free(
        self, kinds: Sequence[TaskKind], only: Sequence[sa.ColumnElement[bool]] = ()
    ) -> bool:
        """Return whether there is a task of `kinds` to claim that meets the conditions `only`."""
        found = self._connection.execute(
            sa.select(tasks.c.id).where(tasks.c.kind.in_(kinds), _free(), *only).limit(1)
        ).one_or_none()
        return found is not None

    def claim(
        self,
        kinds: Sequence[TaskKind],
        lease_s: float,
        only: Sequence[sa.ColumnElement[bool]] = (),
    ) -> Task | None:
        """Take the oldest free task of `kinds` that meets `only`, for `lease_s` seconds."""
        oldest = (
            sa.select(tasks.c.id)
            .where(tasks.c.kind.in_(kinds), _free(), *only)
            .order_by(tasks.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway
            .scalar_subquery()
        )
        row = self._connection.execute(
            tasks.update()
            .where(tasks.c.id == oldest)
            .values(
                state=RUNNING,
                fence=tasks.c.fence + 1,
                # Still marked as running: whoever had it fell silent.
                failures=tasks.c.failures + sa.case((tasks.c.state == RUNNING, 1), else_=0),
                lease_until=database_now() + lease_s,
            )
            .returning(tasks)
        ).one_or_none()
        if row is None:
            return None
        return Task(
            id=row.id,
            kind=TaskKind(row.kind),
            subject=row.subject,
            tenant=Tenant(row.organization_id, row.organization_slug, row.project_id),
            fence=row.fence,
            failures=row.failures,
        )

    def hold(self, task: Task) -> None:
        """Lock the task's row for this transaction; raise LeaseLost if it is another's now."""
        held = self._connection.execute(
            tasks.update().where(*self._ours(task)).values(fence=tasks.c.fence)
        )
        if held.rowcount != 1:
            raise LeaseLost(f"task {task.id} ({task.kind} {task.subject})")

    def failures(self, task: Task) -> int:
        """Return how often a task has failed since it was last forgiven."""
        return (
            self._connection.execute(
                sa.select(tasks.c.failures).where(tasks.c.id == task.id)
            ).scalar_one_or_none()
            or 0
        )

    def forgive(self, task: Task) -> None:
        """Count a task's failures from here on anew: it has got on since the last one."""
        self._connection.execute(tasks.update().where(*self._ours(task)).values(failures=0))

    def renew(self, task: Task, lease_s: float) -> bool:
        """Extend the lease; raise LeaseLost if it is another's now.

        Returns whether the work may go on: False asks to come to a stop and give the task back.
        """
        state = self._connection.execute(
            tasks.update()
            .where(*self._ours(task))
            .values(lease_until=database_now() + lease_s)
            .returning(tasks.c.state)
        ).scalar_one_or_none()
        if state is None:
            raise LeaseLost(f"task {task.id} ({task.kind} {task.subject})")
        return bool(state == RUNNING)

    def finish(self, task: Task) -> None:
        """Remove a task that is done; raise LeaseLost if it is another's now."""
        done = self._connection.execute(tasks.delete().where(*self._ours(task)))
        if done.rowcount != 1:
            raise LeaseLost(f"task {task.id} ({task.kind} {task.subject})")

    def put_back(self, task: Task, delay_s: float, *, failed: bool = False) -> None:
        """Let go of a task, to be claimed again after `delay_s` seconds, or once it is resumed."""
        self._connection.execute(
            tasks.update()
            .where(*self._ours(task))
            .values(
                state=sa.case((tasks.c.state == PAUSED, PAUSED), else_=QUEUED),
                lease_until=None,
                run_after=database_now() + delay_s,
                failures=tasks.c.failures + int(failed),
            )
        )

    def pause(self, tenant: Tenant, kind: TaskKind, subject: str) -> bool:
        """Keep a task from being claimed; return whether there is one.

        Its row is locked until the transaction ends: its holder changes nothing meanwhile.
        """
        paused = self._connection.execute(
            tasks.update()
            .where(
                tasks.c.project_id == tenant.project_id,
                tasks.c.subject == subject,
                tasks.c.kind == kind,
            )
            .values(state=PAUSED)
        )
        return paused.rowcount > 0

    def resume(self, tenant: Tenant, subject: str) -> None:
        """Let a paused task be claimed again, now or as soon as its holder has come to a stop.

        Every task of `subject` is locked, so that one which is just being paused is waited for.
        """
        paused = tasks.c.state == PAUSED
        self._connection.execute(
            tasks.update()
            .where(tasks.c.project_id == tenant.project_id, tasks.c.subject == subject)
            .values(
                state=sa.case(
                    (sa.not_(paused), tasks.c.state),
                    (tasks.c.lease_until.is_(None), QUEUED),
                    else_=YIELDING,
                ),
                run_after=sa.case((paused, database_now()), else_=tasks.c.run_after),
            )
        )

    def drop(self, tenant: Tenant, subject: str) -> None:
        """Remove every task of `subject`: whoever works on one loses it."""
        self._connection.execute(
            tasks.delete().where(
                tasks.c.project_id == tenant.project_id, tasks.c.subject == subject
            )
        )

    def drop_idle(self, tenant: Tenant, kinds: Sequence[TaskKind], subject: str) -> bool:
        """Remove the tasks of `subject` that nobody works on; return whether there were any."""
        dropped = self._connection.execute(
            tasks.delete().where(
                tasks.c.project_id == tenant.project_id,
                tasks.c.subject == subject,
                tasks.c.kind.in_(kinds),
                idle(),
            )
        )
        return dropped.rowcount > 0

    @staticmethod
    def _ours(task: Task) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            tasks.c.id == task.id,
            tasks.c.fence == task.fence,
            tasks.c.state != QUEUED,
            tasks.c.lease_until.is_not(None),  # a paused task that was given back is nobody's
        )


def _free() -> sa.ColumnElement[bool]:
    """Return the condition for a task that waits, or whose worker has fallen silent."""
    now = database_now()
    return sa.or_(
        sa.and_(tasks.c.state == QUEUED, tasks.c.run_after <= now),
        sa.and_(tasks.c.state.in_((RUNNING, YIELDING)), tasks.c.lease_until < now),
    )


def idle() -> sa.ColumnElement[bool]:
    """Return the condition for a task that nobody works on, be it due or not."""
    return sa.or_(tasks.c.state == QUEUED, tasks.c.lease_until < database_now())
