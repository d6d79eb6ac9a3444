"""Fine-tuning jobs as their owners see them: created, listed, cancelled, followed."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunery.domain.errors import InvalidRequest, NotFound
from tunery.domain.files import FilePurpose
from tunery.domain.ids import new_id
from tunery.domain.jobs import (
    TERMINAL,
    Checkpoint,
    Job,
    JobError,
    JobEvent,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    StepMetrics,
    TrainingMethod,
    WandbIntegration,
)
from tunery.domain.models import check_suffix
from tunery.domain.once import OnceKey
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.domain.webhooks import EventType
from tunery.services.imported_models import awaited
from tunery.services.models import ModelDirectory
from tunery.services.webhooks import emit
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Page
from tunery.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is created with."""

    model: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int | None
    hyperparameters: RequestedHyperparameters
    metadata: dict[str, str] | None
    integrations: tuple[WandbIntegration, ...] = ()
    method: TrainingMethod = TrainingMethod.SUPERVISED
    replaces: str | None = None  # the imported model whose name the result takes over


def create_job(
    database: Database,
    directory: ModelDirectory,
    tenant: Tenant,
    request: JobRequest,
    once: OnceKey | None = None,
) -> Job:
    """Accept a job; its files are checked by the worker. Raises AlreadyDone under a known key."""
    job_id, now = new_id("ftjob-"), int(time.time())
    with database.write() as tx:
        tx.once(tenant).record(once, job_id, now)
        return accept_job(tx, directory, tenant, request, job_id, now)


def accept_job(
    tx: Transaction,
    directory: ModelDirectory,
    tenant: Tenant,
    request: JobRequest,
    job_id: str,
    now: int,
) -> Job:
    """Accept a job in a transaction that has more to do."""
    if request.suffix is not None:
        check_suffix(request.suffix)
    model = directory.find(tx, tenant, request.model)
    if model is None:
        imported = awaited(tx, tenant, request.model)
        raise InvalidRequest(
            f"Model {request.model[:200]} is not available for fine-tuning or does not exist."
            if imported is None
            else imported.message,
            code="model_not_available",
        )
    if model.granted:
        raise InvalidRequest(
            f"Model {request.model[:200]} belongs to another project, which shares it for"
            " inference; only that project can fine-tune from it.",
            code="model_not_available",
        )
    _require_training_file(tx, tenant, request.training_file, "training_file")
    if request.validation_file is not None:
        _require_training_file(tx, tenant, request.validation_file, "validation_file")
    job = Job(
        id=job_id,
        model=request.model,
        base=model.base.name,
        base_digest=model.base.digest,
        parent_model=None if model.tuned is None else model.tuned.name,
        training_file=request.training_file,
        validation_file=request.validation_file,
        suffix=request.suffix,
        seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
        requested=request.hyperparameters,
        resolved=None,
        metadata=request.metadata,
        status=JobStatus.VALIDATING_FILES,
        error=None,
        trained_tokens=None,
        fine_tuned_model=None,
        result_files=(),
        created_at=now,
        started_at=None,
        finished_at=None,
        integrations=request.integrations,
        method=request.method,
        replaces=request.replaces,
    )
    tx.jobs(tenant).add(job)
    log(tx, tenant, job.id, f"Created fine-tuning job: {job.id}")
    files = f"training file: {job.training_file}"
    if job.validation_file is not None:
        files += f" and validation file: {job.validation_file}"
    log(tx, tenant, job.id, f"Validating {files}")
    tx.queue.add(tenant, TaskKind.PREPARE_JOB, job.id)
    return job


def find_job(tx: Transaction, tenant: Tenant, job_id: str) -> Job:
    """Return a job, or raise NotFound in OpenAI's words."""
    job = tx.jobs(tenant).get(job_id)
    if job is None:
        raise NotFound(
            f"Could not find fine tune: {job_id[:200]}",
            param="fine_tune_id",
            code="fine_tune_not_found",
        )
    return job


def get_job(database: Database, tenant: Tenant, job_id: str) -> Job:
    """Return a job."""
    with database.read() as tx:
        return find_job(tx, tenant, job_id)


def list_jobs(
    database: Database,
    tenant: Tenant,
    *,
    metadata: Mapping[str, str] | None,
    after: str | None,
    limit: int,
) -> Page[Job]:
    """Return a page of jobs, newest first: those with each pair of `metadata`; None: with none."""
    with database.read() as tx:
        return tx.jobs(tenant).page(metadata=metadata, after=after, limit=limit)


def cancel_job(database: Database, tenant: Tenant, job_id: str) -> Job:
    """Stop a job: its state changes now, its worker hears of it within seconds."""
    now = int(time.time())
    with database.write() as tx:
        # Tasks are locked before jobs, as a worker does. It may add the next one meanwhile.
        tx.queue.drop(tenant, job_id)
        tx.queue.drop(tenant, job_id)
        job = find_job(tx, tenant, job_id)
        if job.status in TERMINAL:
            raise InvalidRequest(
                f"Job {job_id} has already {job.status} and cannot be cancelled.",
                code="job_not_cancellable",
            )
        tx.jobs(tenant).advance(job, JobEvent.CANCELLED, finished_at=now)
        log(tx, tenant, job_id, "The job was cancelled")
        keep_checkpoints(tx, tenant, job_id)
        emit(tx, tenant, EventType.JOB_CANCELLED, job_id, now)
        return find_job(tx, tenant, job_id)


def list_events(
    database: Database, tenant: Tenant, job_id: str, *, after: str | None, limit: int
) -> Page[LogEntry]:
    """Return a page of the job's events, newest first."""
    with database.read() as tx:
        find_job(tx, tenant, job_id)
        return tx.jobs(tenant).events(job_id, after=after, limit=limit)


def list_checkpoints(
    database: Database, tenant: Tenant, job_id: str, *, after: str | None, limit: int
) -> Page[Checkpoint]:
    """Return a page of the job's published checkpoints, newest first."""
    with database.read() as tx:
        find_job(tx, tenant, job_id)
        return tx.jobs(tenant).checkpoints(job_id, after=after, limit=limit)


# ---- for the worker's services


def fail_job(tx: Transaction, tenant: Tenant, job: Job, error: JobError) -> None:
    """End a job with an error that its owner can read; its tasks are done."""
    now = int(time.time())
    tx.jobs(tenant).advance(
        job,
        JobEvent.FAILED,
        error={"code": error.code, "message": error.message, "param": error.param},
        finished_at=now,
    )
    tx.queue.drop(tenant, job.id)
    log(tx, tenant, job.id, error.message, level="error")
    emit(tx, tenant, EventType.JOB_FAILED, job.id, now)


def keep_checkpoints(tx: Transaction, tenant: Tenant, job_id: str) -> None:
    """Have the checkpoints published that a job made before it was cancelled or failed."""
    if tx.jobs(tenant).epoch_checkpoints(job_id):
        tx.queue.add(tenant, TaskKind.KEEP_CHECKPOINTS, job_id)


def log(
    tx: Transaction,
    tenant: Tenant,
    job_id: str,
    message: str,
    *,
    level: str = "info",
    metrics: StepMetrics | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Append a line to the job's story; `data` is what it says, for programs."""
    if metrics is not None:
        data = dict(metrics.told())
    tx.jobs(tenant).log(
        job_id,
        LogEntry(
            id=new_id("ftevent-"),
            created_at=int(time.time()),
            level="error" if level == "error" else "info" if level == "info" else "warn",
            kind="message" if metrics is None else "metrics",
            message=message,
            data=data,
        ),
    )


def _require_training_file(tx: Transaction, tenant: Tenant, file_id: str, param: str) -> None:
    file = tx.files(tenant).visible(file_id, lock="shared")
    if file is None:
        raise InvalidRequest(
            f"Invalid {param}: there is no file {file_id[:200]}. Upload one with purpose"
            " 'fine-tune'.",
            param=param,
            code="invalid_file",
        )
    if file.purpose is not FilePurpose.FINE_TUNE:
        raise InvalidRequest(
            f"Invalid {param}: {file_id} has purpose '{file.purpose}'; it needs 'fine-tune'.",
            param=param,
            code="invalid_file",
        )
