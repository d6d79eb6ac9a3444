"""A job as it is reported to where its owner wanted its metrics."""

from dataclasses import asdict

from tunery.domain.jobs import Job
from tunery.domain.ports.tracking import TrackedEnd, TrackedRun
from tunery.domain.tenants import Tenant
from tunery.services.jobs import log
from tunery.storage.database import Database


def tracked_run(job: Job) -> TrackedRun:
    """Return what is told of a job at its start."""
    numbers = job.requested if job.resolved is None else job.resolved
    config = {
        "job_id": job.id,
        "model": job.model,
        "base": job.base,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "suffix": job.suffix,
        "seed": job.seed,
        "method": job.method,
        **{name: value for name, value in asdict(numbers).items() if value is not None},
    }
    # OpenAI's own tags: a dashboard that was made for its runs finds these too.
    tags = ("openai/finetune", f"openai/{job.model}", f"openai/{job.id}")
    run_ids = tuple(job.run_id(number) for number in range(len(job.integrations)))
    return TrackedRun(job.id, run_ids, job.integrations, tags, config)


def tracked_end(job: Job) -> TrackedEnd:
    """Return what is told of a job at the end of a task."""
    return TrackedEnd(job.status, job.fine_tuned_model, job.trained_tokens)


def warn(database: Database, tenant: Tenant, job_id: str, problem: str) -> None:
    """Tell the job's owner that its metrics are not reported."""
    with database.write() as tx:
        if tx.jobs(tenant).get(job_id) is not None:
            message = f"Metrics are not reported to Weights & Biases: {problem}."
            log(tx, tenant, job_id, f"{message} Training is not affected.", level="warn")
