"""Fine-tuning jobs."""

from collections.abc import Sequence
from dataclasses import asdict

from tunery.domain.jobs import (
    Checkpoint,
    Job,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    WandbIntegration,
)
from tunery.domain.tenants import Tenant
from tunery.protocol.fine_tuning import (
    CheckpointMetrics,
    FineTuningJob,
    FineTuningJobCheckpoint,
    FineTuningJobEvent,
    Integration,
    IntegrationBody,
    JobErrorBody,
    MethodBody,
    ResolvedHyperparameters,
    SupervisedHyperparameters,
    SupervisedMethodBody,
    WandbBody,
)

_NOT_RUNNING = (JobStatus.VALIDATING_FILES, JobStatus.QUEUED, JobStatus.PAUSED)


def from_wire_hyperparameters(
    wire: SupervisedHyperparameters | None,
) -> RequestedHyperparameters:
    """Return what a job is to be trained with."""
    if wire is None:
        return RequestedHyperparameters()
    multiplier = wire.learning_rate_multiplier
    return RequestedHyperparameters(
        n_epochs=wire.n_epochs,
        batch_size=wire.batch_size,
        learning_rate_multiplier="auto" if multiplier == "auto" else float(multiplier),
    )


def from_wire_integrations(wire: Sequence[Integration] | None) -> tuple[WandbIntegration, ...]:
    """Return where a job's metrics are to be reported."""
    return tuple(
        WandbIntegration(one.wandb.project, one.wandb.name, one.wandb.entity, tuple(one.wandb.tags))
        for one in wire or ()
    )


def to_wire_job(job: Job, tenant: Tenant) -> FineTuningJob:
    """Return a job as OpenAI writes it: "auto" is echoed until the job runs."""
    waiting = job.started_at is None and job.status in _NOT_RUNNING
    numbers = job.requested if waiting or job.resolved is None else job.resolved
    hyperparameters = ResolvedHyperparameters(**asdict(numbers))
    return FineTuningJob(
        id=job.id,
        created_at=job.created_at,
        error=None if job.error is None else JobErrorBody(**asdict(job.error)),
        fine_tuned_model=job.fine_tuned_model,
        finished_at=job.finished_at,
        hyperparameters=hyperparameters,
        model=job.model,
        organization_id=tenant.organization_id,
        result_files=list(job.result_files),
        status=job.status,
        trained_tokens=job.trained_tokens,
        training_file=job.training_file,
        validation_file=job.validation_file,
        integrations=[IntegrationBody(wandb=WandbBody(**asdict(one))) for one in job.integrations],
        seed=job.seed,
        method=MethodBody(supervised=SupervisedMethodBody(hyperparameters=hyperparameters)),
        metadata=job.metadata,
        user_provided_suffix=job.suffix,
    )


def to_wire_event(entry: LogEntry) -> FineTuningJobEvent:
    """Return an event as OpenAI writes it."""
    return FineTuningJobEvent(
        id=entry.id,
        created_at=entry.created_at,
        level=entry.level,
        message=entry.message,
        type=entry.kind,
        data=entry.data or {},
    )


def to_wire_checkpoint(checkpoint: Checkpoint) -> FineTuningJobCheckpoint:
    """Return a checkpoint as OpenAI writes it."""
    metrics = asdict(checkpoint.metrics)
    metrics.pop("total_steps")
    return FineTuningJobCheckpoint(
        id=checkpoint.id,
        created_at=checkpoint.created_at,
        fine_tuned_model_checkpoint=checkpoint.model_name,
        fine_tuning_job_id=checkpoint.job_id,
        metrics=CheckpointMetrics(**metrics),
        step_number=checkpoint.step,
    )
