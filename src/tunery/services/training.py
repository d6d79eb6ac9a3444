"""A job is trained: what the run reports becomes events, checkpoints and a point to resume from.

Every write first proves that its worker still holds the task: a zombie's reports change nothing.
What a run reports after its job was paused is kept like any other report: its task stays its
worker's until the run has come to a stop.
"""

import time
from dataclasses import asdict

from tunery.domain.errors import TuneryError
from tunery.domain.jobs import (
    TERMINAL,
    EpochCheckpoint,
    Job,
    JobError,
    JobEvent,
    JobStatus,
    Snapshot,
    StepMetrics,
)
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.training import (
    MadeWith,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPaused,
    RunStarted,
    TrainingReport,
    TrainingRun,
)
from tunery.domain.tasks import Task, TaskKind
from tunery.domain.tenants import Tenant
from tunery.services.jobs import fail_job, find_job, keep_checkpoints, log
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

# The result file's columns, and the numbers that stand in them.
_COLUMNS = {
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
_REWARD_COLUMNS = [
    f"{of}_{what}"
    for of in ("train", "valid")
    for what in ("chosen_reward", "rejected_reward", "reward_margin", "reward_accuracy")
]


def begin_run(database: Database, task: Task) -> TrainingRun | None:
    """Start, or take up again, the job of a claimed task.

    Returns None where the job was paused just now: the task is given back.
    """
    tenant = task.tenant
    with database.write() as tx:
        tx.queue.hold(task)
        job = find_job(tx, tenant, task.subject)
        if job.status is JobStatus.PAUSED:
            tx.queue.put_back(task, 0.0)
            return None
        snapshot = tx.jobs(tenant).snapshot(job.id)
        tx.jobs(tenant).drop_steps_after(job.id, 0 if snapshot is None else snapshot.step)
        tx.jobs(tenant).set_estimated_finish(job.id, None)
        where = "from the beginning" if snapshot is None else f"after step {snapshot.step}"
        if job.status is JobStatus.RUNNING:
            log(tx, tenant, job.id, f"Training was interrupted; it goes on {where}", level="warn")
        elif job.started_at is None:
            tx.jobs(tenant).advance(job, JobEvent.STARTED, started_at=int(time.time()))
            log(tx, tenant, job.id, "Fine-tuning job started")
        else:  # it was paused and resumed
            tx.jobs(tenant).advance(job, JobEvent.STARTED)
            log(tx, tenant, job.id, f"Training goes on {where}")
        training_file = tx.files(tenant).get(job.training_file)
        validation_file = (
            None if job.validation_file is None else tx.files(tenant).get(job.validation_file)
        )
        parent = None if job.parent_model is None else tx.models(tenant).get(job.parent_model)
    if training_file is None or job.resolved is None:
        raise TuneryError(f"Job {job.id} has lost its training file.", code="server_error")
    if job.parent_model is not None and parent is None:
        raise TuneryError(
            f"The model {job.parent_model} that training starts from was deleted.",
            code="model_not_found",
        )
    return TrainingRun(
        job_id=job.id,
        base=job.base,
        base_digest=job.base_digest,
        training_key=training_file.blob_key,
        validation_key=None if validation_file is None else validation_file.blob_key,
        hyperparameters=job.resolved,
        seed=job.seed,
        output_prefix=f"{job_prefix(tenant, job.id)}/attempt-{task.fence}",
        start_from=None if parent is None else parent.adapter,
        resume_from=snapshot,
        method=job.method,
    )


def record(database: Database, blobs: BlobStore, task: Task, report: TrainingReport) -> bool:
    """Make one report part of the job; raise LeaseLost where it is not this worker's any more.

    Returns whether the task goes on: False once nothing more is to come of this run.
    """
    tenant, job_id = task.tenant, task.subject
    goes_on = True
    outdated: Snapshot | None = None
    with database.write() as tx:
        tx.queue.hold(task)
        match report:
            case RunStarted():
                outdated = _damaged(tx, tenant, job_id, report)
                _log_made_with(tx, tenant, job_id, report.made_with)
            case StepMetrics():
                log(tx, tenant, job_id, step_message(report), metrics=report)
                if report.seconds_left is not None:
                    finish = int(time.time() + report.seconds_left)
                    tx.jobs(tenant).set_estimated_finish(job_id, finish)
            case EpochCheckpoint():
                tx.jobs(tenant).add_epoch_checkpoint(job_id, report)
            case Snapshot():
                tx.queue.forgive(task)  # it gets on, whatever has interrupted it over days
                outdated = tx.jobs(tenant).snapshot(job_id)
                tx.jobs(tenant).set_snapshot(job_id, report)
            case RunFinished():
                goes_on = False
                if find_job(tx, tenant, job_id).status is JobStatus.RUNNING:
                    tx.jobs(tenant).set_trained_tokens(job_id, report.trained_tokens)
                    tx.queue.finish(task)
                    tx.queue.add(tenant, TaskKind.PUBLISH_JOB, job_id)
                else:  # paused too late: its last snapshot is the end, and is taken up when resumed
                    tx.queue.put_back(task, 0.0)
            case RunPaused():
                goes_on = False
                tx.queue.put_back(task, 0.0)
            case RunInterrupted():
                goes_on = False  # its task is given back by who tries it again
            case RunFailed():
                goes_on = False
                _fail(tx, tenant, find_job(tx, tenant, job_id), report)
    if outdated is not None:
        blobs.delete(outdated.key)
    return goes_on


def _damaged(tx: Transaction, tenant: Tenant, job_id: str, started: RunStarted) -> Snapshot | None:
    """Forget the snapshot of a run that could not be taken up there, and return it."""
    snapshot = tx.jobs(tenant).snapshot(job_id)
    if snapshot is None or started.first_step > snapshot.step:
        return None
    tx.jobs(tenant).set_snapshot(job_id, None)
    tx.jobs(tenant).drop_steps_after(job_id, 0)
    message = (
        f"The state that was saved after step {snapshot.step} is damaged; training goes on from"
        " the beginning"
    )
    log(tx, tenant, job_id, message, level="warn")
    return snapshot


def _log_made_with(
    tx: Transaction, tenant: Tenant, job_id: str, made_with: MadeWith | None
) -> None:
    if made_with is not None:
        log(tx, tenant, job_id, made_with_message(made_with), data=asdict(made_with))


def _fail(tx: Transaction, tenant: Tenant, job: Job, report: RunFailed) -> None:
    """Fail the job of a run; its checkpoints up to the last good one are kept."""
    if report.good_step is not None:
        tx.jobs(tenant).drop_checkpoints_after(job.id, report.good_step)
    fail_job(tx, tenant, job, JobError(report.code, report.message, None))
    keep_checkpoints(tx, tenant, job.id)


def abandon(database: Database, task: Task, error: JobError) -> None:
    """Fail the job of a task that cannot be carried out."""
    with database.write() as tx:
        tx.queue.hold(task)
        job = find_job(tx, task.tenant, task.subject)
        if job.status in TERMINAL:
            tx.queue.finish(task)
        else:
            fail_job(tx, task.tenant, job, error)
            if task.kind is TaskKind.TRAIN_JOB:
                keep_checkpoints(tx, task.tenant, job.id)


def clean_up(database: Database, blobs: BlobStore, tenant: Tenant, job_id: str) -> bool:
    """Remove what a finished job leaves behind: all but known adapters, and what was learned.

    Returns whether the job has finished.
    """
    with database.read() as tx:
        job = tx.jobs(tenant).get(job_id)
        if job is None or job.status not in TERMINAL:
            return False
        kept = {c.adapter.key for c in tx.jobs(tenant).epoch_checkpoints(job.id)}
        if job.status is not JobStatus.CANCELLED:
            kept.add(account_prefix(tenant, job.id))
    for key in list(blobs.keys(job_prefix(tenant, job.id))):
        if key.rpartition("/")[0] not in kept:
            blobs.delete(key)
    return True


def unfinished_prefixes(database: Database) -> set[str]:
    """Return the prefixes of every project's jobs that have not ended."""
    with database.read() as tx:
        return {_prefix(project_id, job_id) for project_id, job_id in tx.unfinished_jobs()}


def job_prefix(tenant: Tenant, job_id: str) -> str:
    """Return the folder of everything that a job's attempts write."""
    return _prefix(tenant.project_id, job_id)


def account_prefix(tenant: Tenant, job_id: str) -> str:
    """Return the folder of the tables that say what is learned of each line of a job's files."""
    return f"{job_prefix(tenant, job_id)}/account"


def _prefix(project_id: str, job_id: str) -> str:
    return f"{project_id}/jobs/{job_id}"


def made_with_message(made_with: MadeWith) -> str:
    """Return what a run is made with as a line; whole digests are in the event's data."""
    return (
        f"Training with tunery {made_with.tunery}, torch {made_with.torch},"
        f" transformers {made_with.transformers}, tokenizers {made_with.tokenizers} in"
        f" {made_with.arithmetic} on {made_with.threads} threads; data"
        f" {made_with.training_digest[:12]}, template {made_with.template_digest[:12]}"
    )


def step_message(metrics: StepMetrics) -> str:
    """Return a step's line as OpenAI writes it."""
    text = f"Step {metrics.step}/{metrics.total_steps}: training loss={metrics.train_loss:.2f}"
    if metrics.valid_loss is not None:
        text += f", validation loss={metrics.valid_loss:.2f}"
    if metrics.full_valid_loss is not None:
        text += f", full validation loss={metrics.full_valid_loss:.2f}"
    return text


def results_csv(steps: list[StepMetrics]) -> bytes:
    """Return the result file: OpenAI's columns, blanks where there is no number.

    Where there are rewards, they stand behind OpenAI's columns, which have no place for them.
    """
    columns = dict(_COLUMNS)
    if any(step.train_reward_margin is not None for step in steps):
        columns |= {name: name for name in _REWARD_COLUMNS}

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.5f}"

    rows = [",".join(("step", *columns))]
    rows += [
        ",".join((str(step.step), *(cell(getattr(step, field)) for field in columns.values())))
        for step in steps
    ]
    return ("\n".join(rows) + "\n").encode()
