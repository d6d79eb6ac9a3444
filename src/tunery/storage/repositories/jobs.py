"""A tenant's jobs, with their events and checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tunery.domain.errors import Conflict
from tunery.domain.jobs import (
    TERMINAL,
    Adapter,
    Checkpoint,
    EpochCheckpoint,
    Hyperparameters,
    Job,
    JobError,
    JobEvent,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    Snapshot,
    StepMetrics,
    TrainingMethod,
    WandbIntegration,
    next_status,
)
from tunery.domain.tenants import Tenant
from tunery.storage.repositories.labels import LabelRepository
from tunery.storage.repositories.paging import Page, select_page
from tunery.storage.tables import checkpoints, epoch_checkpoints, job_events, jobs


class JobRepository:
    """The jobs of one project."""

    def __init__(self, connection: Connection, tenant: Tenant) -> None:
        self._connection = connection
        self._project_id = tenant.project_id
        self._labels = LabelRepository(connection, tenant)

    def add(self, job: Job) -> None:
        """Insert a job, to be found by its metadata too."""
        self._labels.set(job.id, job.metadata)
        values = {
            field: getattr(job, field)
            for field in Job.__dataclass_fields__
            if field not in ("requested", "resolved", "error", "result_files", "integrations")
        }
        self._connection.execute(
            jobs.insert().values(
                project_id=self._project_id,
                requested=asdict(job.requested),
                resolved=None if job.resolved is None else asdict(job.resolved),
                error=None if job.error is None else asdict(job.error),
                result_files=list(job.result_files),
                integrations=[asdict(one) for one in job.integrations] or None,
                **values,
            )
        )

    def get(self, job_id: str) -> Job | None:
        """Return a job."""
        row = self._connection.execute(sa.select(jobs).where(*self._is(job_id))).one_or_none()
        return None if row is None else _job(row)

    def lock(self, job_id: str) -> None:
        """Keep others from changing the job, or from locking it, until the transaction ends."""
        self._connection.execute(
            sa.select(jobs.c.seq).where(*self._is(job_id)).with_for_update()
        ).one_or_none()

    def page(
        self, *, metadata: Mapping[str, str] | None, after: str | None, limit: int
    ) -> Page[Job]:
        """Return a page of jobs, newest first.

        Each of them carries every pair of `metadata`; with None, no metadata at all.
        """
        conditions = [jobs.c.project_id == self._project_id]
        if metadata is None:
            conditions.append(sa.or_(jobs.c.metadata.is_(None), jobs.c.metadata == {}))
        else:
            conditions += self._labels.matching(jobs.c.id, metadata)
        rows, more = select_page(
            self._connection,
            jobs,
            conditions,
            after=after,
            limit=limit,
            order="desc",
        )
        return Page(tuple(_job(row) for row in rows), more)

    def unfinished_with_file(self, file_id: str) -> str | None:
        """Return the id of a job that still needs the file, if there is one."""
        return self._connection.execute(
            sa.select(jobs.c.id)
            .where(
                jobs.c.project_id == self._project_id,
                jobs.c.status.not_in(TERMINAL),
                sa.or_(jobs.c.training_file == file_id, jobs.c.validation_file == file_id),
            )
            .limit(1)
        ).scalar_one_or_none()

    def imported_as(self, model_name: str) -> Job | None:
        """Return the imported job that made a model, or a checkpoint, of this name elsewhere."""
        of_checkpoint = sa.select(checkpoints.c.job_id).where(
            checkpoints.c.project_id == self._project_id, checkpoints.c.model_name == model_name
        )
        row = self._connection.execute(
            sa.select(jobs)
            .where(
                jobs.c.project_id == self._project_id,
                jobs.c.imported_from.is_not(None),
                sa.or_(jobs.c.fine_tuned_model == model_name, jobs.c.id.in_(of_checkpoint)),
            )
            .limit(1)
        ).one_or_none()
        return None if row is None else _job(row)

    def imported(self) -> Sequence[Job]:
        """Return every imported job, oldest first."""
        rows = self._connection.execute(
            sa.select(jobs)
            .where(jobs.c.project_id == self._project_id, jobs.c.imported_from.is_not(None))
            .order_by(jobs.c.seq)
        )
        return [_job(row) for row in rows]

    def replacing(self, model_name: str) -> Sequence[Job]:
        """Return the jobs whose model is to take over this name, oldest first."""
        rows = self._connection.execute(
            sa.select(jobs)
            .where(jobs.c.project_id == self._project_id, jobs.c.replaces == model_name)
            .order_by(jobs.c.seq)
        )
        return [_job(row) for row in rows]

    def ended_on(self, base_digest: str) -> Sequence[Job]:
        """Return the jobs that were trained here on this base to their end, oldest first."""
        rows = self._connection.execute(
            sa.select(jobs)
            .where(
                jobs.c.project_id == self._project_id,
                jobs.c.base_digest == base_digest,
                jobs.c.status == JobStatus.SUCCEEDED,
            )
            .order_by(jobs.c.seq)
        )
        return [_job(row) for row in rows]

    def advance(self, job: Job, event: JobEvent, **changes: Any) -> None:
        """Move the job on by `event`, with `changes` to its columns: the only way to a new state.

        A compare-and-set: raises Conflict if the job is no longer in the state it was read in.
        """
        status = next_status(job.status, event)
        moved = self._connection.execute(
            jobs.update()
            .where(*self._is(job.id), jobs.c.status == job.status)
            .values(status=status, **changes)
        )
        if moved.rowcount != 1:
            raise Conflict(f"Job {job.id} is no longer {job.status}; look at it again.")

    def set_resolved(self, job_id: str, resolved: Hyperparameters) -> None:
        """Record what every "auto" became."""
        self._set(job_id, resolved=asdict(resolved))

    def set_trained_tokens(self, job_id: str, trained_tokens: int) -> None:
        """Record the billable tokens of a run that has ended."""
        self._set(job_id, trained_tokens=trained_tokens)

    def set_estimated_finish(self, job_id: str, at: int | None) -> None:
        """Record when the job will have ended, as its run sees it; None where it does not yet."""
        self._set(job_id, estimated_finish=at)

    def set_snapshot(self, job_id: str, snapshot: Snapshot | None) -> None:
        """Record the point to resume from; None: the beginning."""
        self._set(job_id, snapshot=None if snapshot is None else asdict(snapshot))

    def snapshot(self, job_id: str) -> Snapshot | None:
        """Return the point to resume from, if there is one."""
        value = self._connection.execute(
            sa.select(jobs.c.snapshot).where(*self._is(job_id))
        ).scalar_one_or_none()
        return None if value is None else Snapshot(**value)

    def _set(self, job_id: str, **values: Any) -> None:
        self._connection.execute(jobs.update().where(*self._is(job_id)).values(**values))

    # ---- events

    def log(self, job_id: str, entry: LogEntry) -> None:
        """Append a line to the job's story."""
        self._connection.execute(
            job_events.insert().values(
                project_id=self._project_id,
                id=entry.id,
                job_id=job_id,
                created_at=entry.created_at,
                level=entry.level,
                kind=entry.kind,
                message=entry.message,
                data=entry.data,
            )
        )

    def log_all(self, job_id: str, entries: Sequence[LogEntry]) -> None:
        """Append lines to the job's story, in their order."""
        for entry in entries:
            self.log(job_id, entry)

    def events(self, job_id: str, *, after: str | None, limit: int) -> Page[LogEntry]:
        """Return a page of the job's events, newest first."""
        rows, more = select_page(
            self._connection,
            job_events,
            [job_events.c.project_id == self._project_id, job_events.c.job_id == job_id],
            after=after,
            limit=limit,
            order="desc",
        )
        return Page(tuple(_entry(row) for row in rows), more)

    def drop_steps_after(self, job_id: str, step: int) -> None:
        """Remove metrics and checkpoints of steps behind `step`: a resumed run makes them anew."""
        mine = (job_events.c.project_id == self._project_id, job_events.c.job_id == job_id)
        later = job_events.c.data["step"].as_integer() > step
        self._connection.execute(
            job_events.delete().where(*mine, job_events.c.kind == "metrics", later)
        )
        self.drop_checkpoints_after(job_id, step)

    def drop_checkpoints_after(self, job_id: str, step: int) -> None:
        """Forget the adapters of epochs that ended behind `step`."""
        self._connection.execute(
            epoch_checkpoints.delete().where(
                epoch_checkpoints.c.project_id == self._project_id,
                epoch_checkpoints.c.job_id == job_id,
                epoch_checkpoints.c.step > step,
            )
        )

    def metrics(self, job_id: str) -> Sequence[StepMetrics]:
        """Return the numbers of every step, in order."""
        rows = self._connection.execute(
            sa.select(job_events.c.data)
            .where(
                job_events.c.project_id == self._project_id,
                job_events.c.job_id == job_id,
                job_events.c.kind == "metrics",
            )
            .order_by(job_events.c.seq)
        )
        return [StepMetrics(**row.data) for row in rows]

    # ---- checkpoints

    def add_epoch_checkpoint(self, job_id: str, checkpoint: EpochCheckpoint) -> None:
        """Record the adapter of a finished epoch."""
        self._connection.execute(
            epoch_checkpoints.insert().values(
                project_id=self._project_id,
                job_id=job_id,
                step=checkpoint.step,
                epoch=checkpoint.epoch,
                adapter_key=checkpoint.adapter.key,
                adapter_digest=checkpoint.adapter.digest,
                metrics=asdict(checkpoint.metrics),
            )
        )

    def epoch_checkpoints(self, job_id: str) -> Sequence[EpochCheckpoint]:
        """Return the adapters of the finished epochs, oldest first."""
        rows = self._connection.execute(
            sa.select(epoch_checkpoints)
            .where(
                epoch_checkpoints.c.project_id == self._project_id,
                epoch_checkpoints.c.job_id == job_id,
            )
            .order_by(epoch_checkpoints.c.step)
        )
        return [
            EpochCheckpoint(
                row.step,
                row.epoch,
                Adapter(row.adapter_key, row.adapter_digest),
                StepMetrics(**row.metrics),
            )
            for row in rows
        ]

    def keep_epoch_checkpoints(self, job_id: str, steps: Sequence[int]) -> None:
        """Forget the adapters of every other epoch."""
        self._connection.execute(
            epoch_checkpoints.delete().where(
                epoch_checkpoints.c.project_id == self._project_id,
                epoch_checkpoints.c.job_id == job_id,
                epoch_checkpoints.c.step.not_in(steps),
            )
        )

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Publish a checkpoint under its model's name."""
        self._connection.execute(
            checkpoints.insert().values(
                project_id=self._project_id,
                id=checkpoint.id,
                job_id=checkpoint.job_id,
                step=checkpoint.step,
                model_name=checkpoint.model_name,
                metrics=dict(checkpoint.metrics),
                created_at=checkpoint.created_at,
            )
        )

    def checkpoints(self, job_id: str, *, after: str | None, limit: int) -> Page[Checkpoint]:
        """Return a page of the job's published checkpoints, newest first."""
        rows, more = select_page(
            self._connection,
            checkpoints,
            [checkpoints.c.project_id == self._project_id, checkpoints.c.job_id == job_id],
            after=after,
            limit=limit,
            order="desc",
        )
        return Page(
            tuple(
                Checkpoint(
                    id=row.id,
                    job_id=row.job_id,
                    step=row.step,
                    model_name=row.model_name,
                    metrics={k: v for k, v in row.metrics.items() if v is not None},
                    created_at=row.created_at,
                )
                for row in rows
            ),
            more,
        )

    def _is(self, job_id: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (jobs.c.project_id == self._project_id, jobs.c.id == job_id)


def unfinished_jobs(connection: Connection) -> list[tuple[str, str]]:
    """Return project and id of every project's jobs that have not ended."""
    rows = connection.execute(
        sa.select(jobs.c.project_id, jobs.c.id).where(jobs.c.status.not_in(TERMINAL))
    )
    return [(row.project_id, row.id) for row in rows]


def _entry(row: sa.Row[Any]) -> LogEntry:
    return LogEntry(row.id, row.created_at, row.level, row.kind, row.message, row.data)


def _job(row: sa.Row[Any]) -> Job:
    return Job(
        id=row.id,
        model=row.model,
        base=row.base,
        base_digest=row.base_digest,
        parent_model=row.parent_model,
        training_file=row.training_file,
        validation_file=row.validation_file,
        suffix=row.suffix,
        seed=row.seed,
        requested=RequestedHyperparameters(**row.requested),
        resolved=None if row.resolved is None else Hyperparameters(**row.resolved),
        metadata=row.metadata,
        status=JobStatus(row.status),
        error=None if row.error is None else JobError(**row.error),
        trained_tokens=row.trained_tokens,
        fine_tuned_model=row.fine_tuned_model,
        result_files=tuple(row.result_files),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        integrations=tuple(_wandb(one) for one in row.integrations or ()),
        method=TrainingMethod(row.method),
        estimated_finish=row.estimated_finish,
        imported_from=row.imported_from,
        replaces=row.replaces,
    )


def _wandb(value: dict[str, Any]) -> WandbIntegration:
    return WandbIntegration(**{**value, "tags": tuple(value["tags"])})
