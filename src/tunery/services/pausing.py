"""Jobs are paused and resumed by their owners.

A paused job has its task still, which nobody claims. Its run is asked for a snapshot within
seconds, ends, and frees the machine; the call itself waits for none of that.
"""

from tunery.domain.errors import InvalidRequest
from tunery.domain.jobs import TERMINAL, Job, JobEvent, JobStatus
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.services.jobs import find_job, log
from tunery.storage.database import Database


def pause_job(database: Database, tenant: Tenant, job_id: str) -> Job:
    """Stop a queued or training job until it is resumed; nothing it has learned is lost."""
    with database.write() as tx:
        # Tasks are locked before jobs, as a worker does. It may add this one meanwhile.
        held = tx.queue.pause(tenant, TaskKind.TRAIN_JOB, job_id)
        job = find_job(tx, tenant, job_id)
        if not held:
            held = tx.queue.pause(tenant, TaskKind.TRAIN_JOB, job_id)
        if job.status not in (JobStatus.QUEUED, JobStatus.RUNNING):
            raise _refused(job, "paused", _WHY_NOT_PAUSED.get(job.status))
        if not held:
            raise _refused(job, "paused", "it is being published, which takes a moment")
        tx.jobs(tenant).advance(job, JobEvent.PAUSED)
        log(tx, tenant, job_id, "The job was paused")
        return find_job(tx, tenant, job_id)


def resume_job(database: Database, tenant: Tenant, job_id: str) -> Job:
    """Queue a paused job again; it goes on from its last snapshot."""
    with database.write() as tx:
        tx.queue.resume(tenant, job_id)
        job = find_job(tx, tenant, job_id)
        if job.status is not JobStatus.PAUSED:
            raise _refused(job, "resumed", None)
        tx.jobs(tenant).advance(job, JobEvent.RESUMED)
        log(tx, tenant, job_id, "The job was resumed")
        return find_job(tx, tenant, job_id)


_WHY_NOT_PAUSED = {
    JobStatus.VALIDATING_FILES: (
        "it is validating its files; pause it once it is queued, or cancel it"
    ),
    JobStatus.PAUSED: "it is paused already",
}


def _refused(job: Job, what: str, why: str | None) -> InvalidRequest:
    """Return the error for a job whose state does not allow it."""
    if why is None:
        why = f"it has already {job.status}" if job.status in TERMINAL else f"it is {job.status}"
    code = "job_not_pausable" if what == "paused" else "job_not_resumable"
    return InvalidRequest(f"Job {job.id} cannot be {what}: {why}.", code=code)
