"""A tenant's batches, and the answers that a running one has so far."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.batches import (
    TERMINAL,
    AnsweredLine,
    Batch,
    BatchEvent,
    BatchProblem,
    BatchStatus,
    next_status,
)
from tunery.domain.errors import Conflict
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.storage.queue import idle
from tunery.storage.repositories.paging import Page, select_page
from tunery.storage.tables import batch_answers, batches, tasks


class BatchRepository:
    """The batches of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id

    def add(self, batch: Batch) -> None:
        """Insert a batch."""
        values = {f: getattr(batch, f) for f in Batch.__dataclass_fields__ if f != "errors"}
        self._connection.execute(
            batches.insert().values(
                project_id=self._project_id, errors=_plain(batch.errors), **values
            )
        )

    def get(self, batch_id: str, *, lock: bool = False) -> Batch | None:
        """Return a batch; with `lock` nobody else changes it before this transaction ends."""
        query = sa.select(batches).where(*self._is(batch_id))
        row = self._connection.execute(query.with_for_update() if lock else query).one_or_none()
        return None if row is None else _batch(row)

    def page(self, *, after: str | None, limit: int) -> Page[Batch]:
        """Return a page of batches, newest first."""
        rows, more = select_page(
            self._connection,
            batches,
            [batches.c.project_id == self._project_id],
            after=after,
            limit=limit,
            order="desc",
        )
        return Page(tuple(_batch(row) for row in rows), more)

    def unfinished_with_file(self, file_id: str) -> str | None:
        """Return the id of a batch that still needs the file, if there is one."""
        return self._connection.execute(
            sa.select(batches.c.id)
            .where(
                batches.c.project_id == self._project_id,
                batches.c.status.not_in(TERMINAL),
                batches.c.input_file_id == file_id,
            )
            .limit(1)
        ).scalar_one_or_none()

    def advance(self, batch: Batch, event: BatchEvent, now: int, **changes: Any) -> None:
        """Move the batch on by `event`, and note when: the only way to a new state.

        A compare-and-set: raises Conflict if the batch is no longer in the state it was read in.
        """
        status = next_status(batch.status, event)
        moved = self._connection.execute(
            batches.update()
            .where(*self._is(batch.id), batches.c.status == batch.status)
            .values(status=status, **{f"{status}_at": now}, **changes)
        )
        if moved.rowcount != 1:
            raise Conflict(f"Batch {batch.id} is no longer {batch.status}; look at it again.")

    def set_errors(self, batch_id: str, problems: Sequence[BatchProblem]) -> None:
        """Record what the batch is to fail with."""
        self._connection.execute(
            batches.update().where(*self._is(batch_id)).values(errors=_plain(problems))
        )

    # ---- answers

    def add_answers(self, batch_id: str, answers: Sequence[AnsweredLine]) -> None:
        """Keep answers, and count them; those that are kept already are passed over.

        A commit whose word was lost is made again: its lines must not fail the batch.
        """
        known = self._kept_among(batch_id, [answer.line for answer in answers])
        answers = [answer for answer in answers if answer.line not in known]
        if not answers:
            return
        self._connection.execute(
            batch_answers.insert(),
            [
                {
                    "project_id": self._project_id,
                    "batch_id": batch_id,
                    "line": answer.line,
                    "succeeded": int(answer.succeeded),
                    "answer": answer.output,
                }
                for answer in answers
            ],
        )
        succeeded = sum(answer.succeeded for answer in answers)
        self._connection.execute(
            batches.update()
            .where(*self._is(batch_id))
            .values(
                completed=batches.c.completed + succeeded,
                failed=batches.c.failed + len(answers) - succeeded,
                input_tokens=batches.c.input_tokens + sum(a.input_tokens for a in answers),
                output_tokens=batches.c.output_tokens + sum(a.output_tokens for a in answers),
            )
        )

    def _kept_among(self, batch_id: str, lines: Sequence[int]) -> set[int]:
        rows = self._connection.execute(
            sa.select(batch_answers.c.line).where(
                *self._answers_of(batch_id), batch_answers.c.line.in_(lines)
            )
        )
        return set(rows.scalars())

    def answered_lines(self, batch_id: str) -> set[int]:
        """Return the numbers of the lines that are answered."""
        rows = self._connection.execute(
            sa.select(batch_answers.c.line).where(*self._answers_of(batch_id))
        )
        return set(rows.scalars())

    def answers_after(self, batch_id: str, line: int, limit: int) -> Sequence[AnsweredLine]:
        """Return the next answers behind a line, in the order of lines."""
        rows = self._connection.execute(
            sa.select(batch_answers)
            .where(*self._answers_of(batch_id), batch_answers.c.line > line)
            .order_by(batch_answers.c.line)
            .limit(limit)
        )
        return [AnsweredLine(row.line, bool(row.succeeded), row.answer) for row in rows]

    def drop_answers(self, batch_id: str) -> None:
        """Remove the answers of a batch that has ended: its files hold them now."""
        self._connection.execute(batch_answers.delete().where(*self._answers_of(batch_id)))

    def _is(self, batch_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (batches.c.project_id == self._project_id, batches.c.id == batch_id)

    def _answers_of(self, batch_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            batch_answers.c.project_id == self._project_id,
            batch_answers.c.batch_id == batch_id,
        )


def overdue_batches(connection: Connection, now: int) -> list[tuple[Tenant, str]]:
    """Return batches of every project that are to end, and that wait for a worker instead."""
    rows = connection.execute(
        sa.select(
            tasks.c.organization_id, tasks.c.organization_slug, tasks.c.project_id, batches.c.id
        )
        .join(
            batches,
            sa.and_(batches.c.project_id == tasks.c.project_id, batches.c.id == tasks.c.subject),
        )
        .where(
            tasks.c.kind.in_((TaskKind.CHECK_BATCH, TaskKind.RUN_BATCH)),
            idle(),
            sa.or_(batches.c.expires_at <= now, batches.c.status == BatchStatus.CANCELLING),
        )
    )
    return [(Tenant(*owner), batch_id) for *owner, batch_id in rows]


def _plain(problems: Sequence[BatchProblem]) -> list[dict[str, Any]] | None:
    return [asdict(problem) for problem in problems] or None


def _problems(value: list[dict[str, Any]] | None) -> Iterator[BatchProblem]:
    for problem in value or ():
        yield BatchProblem(**problem)


def _batch(row: sa.Row[Any]) -> Batch:
    values = {f: getattr(row, f) for f in Batch.__dataclass_fields__}
    return Batch(
        **{
            **values,
            "status": BatchStatus(row.status),
            "errors": tuple(_problems(row.errors)),
        }
    )
