"""Models that were tuned elsewhere: known by name, answering once they are trained anew here."""

from tunery.domain.errors import NotFound
from tunery.domain.jobs import Job, JobStatus
from tunery.domain.tenants import Tenant
from tunery.storage.transaction import Transaction

_GIVEN_UP = (JobStatus.FAILED, JobStatus.CANCELLED)


def awaited(tx: Transaction, tenant: Tenant, name: str) -> NotFound | None:
    """Return the error for the name of an imported model that does not answer yet.

    None for any other name: what is told is what this tenant's own jobs tell.
    """
    if not name.startswith("ft:"):
        return None
    job = tx.jobs(tenant).imported_as(name)
    if job is None:
        return None
    code = "model_not_found"
    if name != job.fine_tuned_model:
        return NotFound(
            f"The model `{name[:200]}` is an earlier checkpoint of the imported job {job.id}, whose"
            " weights stay where it was trained. Training it anew makes the last one alone; ask"
            f" for `{job.fine_tuned_model}`.",
            code=code,
        )
    successor = latest_successor(tx, tenant, name)
    if successor is None:
        todo = "it answers here once it is trained anew"
    elif successor.status in _GIVEN_UP:
        todo = f"{successor.id}, which was to train it anew, has {successor.status}; start it again"
    elif successor.status is JobStatus.SUCCEEDED:
        return None  # it did answer here, and was deleted
    else:
        return NotFound(
            f"The model `{name[:200]}` was imported without its weights; it answers here once"
            f" {successor.id} has succeeded, which trains it anew and is {successor.status}.",
            code=code,
        )
    return NotFound(
        f"The model `{name[:200]}` was imported without its weights; {todo}: `tunery import openai"
        f" --tune {job.id}`.",
        code=code,
    )


def latest_successor(tx: Transaction, tenant: Tenant, name: str) -> Job | None:
    """Return the job that trains, or has trained, an imported model anew: the latest one."""
    return next(reversed(tx.jobs(tenant).replacing(name)), None)


def taken_over(job: Job | None) -> bool:
    """Return whether a successor trains the model, or has done so."""
    return job is not None and job.status not in _GIVEN_UP
