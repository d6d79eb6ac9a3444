"""/v1/fine_tuning/jobs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from tunery.api.body import documented, read_json
from tunery.api.context import context_of
from tunery.api.gate import CallerDependency
from tunery.api.once import once_key
from tunery.api.query import MetadataDependency
from tunery.domain.once import AlreadyDone
from tunery.protocol.base import ListPage
from tunery.protocol.fine_tuning import (
    CreateFineTuningJobRequest,
    FineTuningJob,
    FineTuningJobCheckpoint,
    FineTuningJobEvent,
)
from tunery.services import jobs, pausing
from tunery.services.training import clean_up
from tunery.wire.fine_tuning import (
    from_wire_integrations,
    from_wire_method,
    to_wire_checkpoint,
    to_wire_event,
    to_wire_job,
)
from tunery.wire.pages import to_wire_page
from tunery.wire.refusals import unsupported

router = APIRouter(prefix="/v1/fine_tuning/jobs")


@router.post("", openapi_extra=documented(CreateFineTuningJobRequest))
async def create(request: Request, caller: CallerDependency) -> FineTuningJob:
    """Create a job."""
    context = context_of(request)
    body = await read_json(request, CreateFineTuningJobRequest)
    if body.integrations and not context.takes_integrations:
        raise unsupported("integrations", "Its operator has switched them off; leave it out.")
    method, hyperparameters = from_wire_method(body)
    wanted = jobs.JobRequest(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=body.seed,
        hyperparameters=hyperparameters,
        metadata=body.metadata,
        integrations=from_wire_integrations(body.integrations),
        method=method,
    )
    try:
        job = await run_in_threadpool(
            jobs.create_job,
            context.database,
            context.directory,
            caller.tenant,
            wanted,
            once_key(request, body),
        )
    except AlreadyDone as done:
        job = await run_in_threadpool(jobs.get_job, context.database, caller.tenant, done.object_id)
    return to_wire_job(job, caller.tenant)


@router.get("")
async def list_all(
    request: Request,
    caller: CallerDependency,
    metadata: MetadataDependency,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> ListPage[FineTuningJob]:
    """List jobs, newest first."""
    page = await run_in_threadpool(
        jobs.list_jobs,
        context_of(request).database,
        caller.tenant,
        metadata=metadata,
        after=after,
        limit=limit,
    )
    return to_wire_page([to_wire_job(job, caller.tenant) for job in page.items], page.has_more)


@router.get("/{job_id}")
async def retrieve(request: Request, caller: CallerDependency, job_id: str) -> FineTuningJob:
    """Return a job."""
    job = await run_in_threadpool(jobs.get_job, context_of(request).database, caller.tenant, job_id)
    return to_wire_job(job, caller.tenant)


@router.post("/{job_id}/cancel")
async def cancel(request: Request, caller: CallerDependency, job_id: str) -> FineTuningJob:
    """Stop a job."""
    context = context_of(request)
    job = await run_in_threadpool(jobs.cancel_job, context.database, caller.tenant, job_id)
    # Its worker, if it has one, does so too once its run has ended; a paused job has none.
    await run_in_threadpool(clean_up, context.database, context.blobs, caller.tenant, job_id)
    return to_wire_job(job, caller.tenant)


@router.post("/{job_id}/pause")
async def pause(request: Request, caller: CallerDependency, job_id: str) -> FineTuningJob:
    """Stop a job until it is resumed."""
    job = await run_in_threadpool(
        pausing.pause_job, context_of(request).database, caller.tenant, job_id
    )
    return to_wire_job(job, caller.tenant)


@router.post("/{job_id}/resume")
async def resume(request: Request, caller: CallerDependency, job_id: str) -> FineTuningJob:
    """Queue a paused job again."""
    job = await run_in_threadpool(
        pausing.resume_job, context_of(request).database, caller.tenant, job_id
    )
    return to_wire_job(job, caller.tenant)


@router.get("/{job_id}/events")
async def events(
    request: Request,
    caller: CallerDependency,
    job_id: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> ListPage[FineTuningJobEvent]:
    """List a job's events, newest first."""
    page = await run_in_threadpool(
        jobs.list_events,
        context_of(request).database,
        caller.tenant,
        job_id,
        after=after,
        limit=limit,
    )
    return to_wire_page([to_wire_event(entry) for entry in page.items], page.has_more)


@router.get("/{job_id}/checkpoints")
async def checkpoints(
    request: Request,
    caller: CallerDependency,
    job_id: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> ListPage[FineTuningJobCheckpoint]:
    """List a job's checkpoints, newest first."""
    page = await run_in_threadpool(
        jobs.list_checkpoints,
        context_of(request).database,
        caller.tenant,
        job_id,
        after=after,
        limit=limit,
    )
    return to_wire_page([to_wire_checkpoint(one) for one in page.items], page.has_more)
