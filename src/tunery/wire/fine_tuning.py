"""Fine-tuning jobs."""

from collections.abc import Sequence
from dataclasses import asdict

from tunery.domain.errors import InvalidRequest
from tunery.domain.jobs import (
    Checkpoint,
    Hyperparameters,
    Job,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    TrainingMethod,
    WandbIntegration,
)
from tunery.domain.tenants import Tenant
from tunery.protocol.fine_tuning import (
    Auto,
    CheckpointMetrics,
    CreateFineTuningJobRequest,
    DpoHyperparameters,
    DpoMethodBody,
    FineTuningJob,
    FineTuningJobCheckpoint,
    FineTuningJobEvent,
    Integration,
    IntegrationBody,
    JobErrorBody,
    JobOrigin,
    MethodBody,
    ResolvedDpoHyperparameters,
    ResolvedHyperparameters,
    SupervisedHyperparameters,
    SupervisedMethodBody,
    WandbBody,
)

_NOT_RUNNING = (JobStatus.VALIDATING_FILES, JobStatus.QUEUED, JobStatus.PAUSED)


def from_wire_method(
    wire: CreateFineTuningJobRequest,
) -> tuple[TrainingMethod, RequestedHyperparameters]:
    """Return how a job is to be trained; raise InvalidRequest for what cannot be honoured."""
    if wire.method is None:
        return TrainingMethod.SUPERVISED, _from_wire_hyperparameters(wire.hyperparameters)
    if wire.method.type not in tuple(TrainingMethod):
        raise InvalidRequest(
            f"Unsupported value: method.type '{wire.method.type}' is not supported by this server"
            " yet; use 'supervised' or 'dpo'.",
            param="method.type",
            code="unsupported_value",
        )
    for other in ("supervised", "dpo", "reinforcement"):
        if other != wire.method.type and getattr(wire.method, other) is not None:
            raise InvalidRequest(
                f"'method.{other}' does not belong to method.type '{wire.method.type}'.",
                param=f"method.{other}",
            )
    if wire.method.type == "dpo":
        if wire.hyperparameters is not None:
            raise InvalidRequest(
                "'hyperparameters' at the top level, where they are deprecated, are those of"
                " supervised training; with method.type 'dpo', set them in 'method.dpo'.",
                param="hyperparameters",
            )
        dpo = None if wire.method.dpo is None else wire.method.dpo.hyperparameters
        return TrainingMethod.DPO, _from_wire_hyperparameters(dpo or DpoHyperparameters())
    inner = None if wire.method.supervised is None else wire.method.supervised.hyperparameters
    if inner is not None and wire.hyperparameters is not None and inner != wire.hyperparameters:
        raise InvalidRequest(
            "Got two different 'hyperparameters': at the top level, where they are deprecated, and"
            " in 'method.supervised'. Keep the latter.",
            param="hyperparameters",
        )
    numbers = inner if inner is not None else wire.hyperparameters
    return TrainingMethod.SUPERVISED, _from_wire_hyperparameters(numbers)


def _from_wire_hyperparameters(
    wire: SupervisedHyperparameters | None,
) -> RequestedHyperparameters:
    if wire is None:
        return RequestedHyperparameters()
    return RequestedHyperparameters(
        n_epochs=wire.n_epochs,
        batch_size=wire.batch_size,
        learning_rate_multiplier=_auto_or_float(wire.learning_rate_multiplier),
        beta=_auto_or_float(wire.beta) if isinstance(wire, DpoHyperparameters) else None,
    )


def _auto_or_float(value: Auto | float) -> Auto | float:
    return "auto" if isinstance(value, str) else float(value)


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
    method = _to_wire_method(job.method, numbers)
    return FineTuningJob(
        id=job.id,
        created_at=job.created_at,
        error=None if job.error is None else JobErrorBody(**asdict(job.error)),
        fine_tuned_model=job.fine_tuned_model,
        finished_at=job.finished_at,
        hyperparameters=None if method.supervised is None else method.supervised.hyperparameters,
        model=job.model,
        organization_id=tenant.organization_id,
        result_files=list(job.result_files),
        status=job.status,
        trained_tokens=job.trained_tokens,
        training_file=job.training_file,
        validation_file=job.validation_file,
        integrations=[IntegrationBody(wandb=WandbBody(**asdict(one))) for one in job.integrations],
        seed=job.seed,
        estimated_finish=job.estimated_finish if job.status is JobStatus.RUNNING else None,
        method=method,
        metadata=job.metadata,
        user_provided_suffix=job.suffix,
        tunery=_to_wire_origin(job),
    )


def _to_wire_origin(job: Job) -> JobOrigin | None:
    if job.imported_from is None and job.replaces is None:
        return None
    return JobOrigin(imported_from=job.imported_from, replaces=job.replaces)


def _to_wire_method(
    method: TrainingMethod, numbers: RequestedHyperparameters | Hyperparameters
) -> MethodBody:
    values = asdict(numbers)
    if method is TrainingMethod.DPO:
        return MethodBody(
            type="dpo", dpo=DpoMethodBody(hyperparameters=ResolvedDpoHyperparameters(**values))
        )
    del values["beta"]
    return MethodBody(
        type="supervised",
        supervised=SupervisedMethodBody(hyperparameters=ResolvedHyperparameters(**values)),
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
    metrics = {
        name: value
        for name, value in checkpoint.metrics.items()
        if name in CheckpointMetrics.model_fields
    }
    return FineTuningJobCheckpoint(
        id=checkpoint.id,
        created_at=checkpoint.created_at,
        fine_tuned_model_checkpoint=checkpoint.model_name,
        fine_tuning_job_id=checkpoint.job_id,
        metrics=CheckpointMetrics(**metrics),
        step_number=checkpoint.step,
    )
