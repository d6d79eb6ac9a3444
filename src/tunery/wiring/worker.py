"""The worker process. Training runs in children of its own, so no torch comes in here either."""

from functools import partial

from tunery.endpoints import registry
from tunery.services.publishing import Tolerance
from tunery.settings import Settings
from tunery.telemetry import logger
from tunery.wiring.outgoing import build_sender
from tunery.wiring.parts import build_parts
from tunery.wiring.storage import (
    open_blobs,
    open_caches,
    open_database,
    renderer_of,
)
from tunery.worker.batches import BatchWork, end_overdue
from tunery.worker.deliveries import Courier
from tunery.worker.executor import LocalExecutor
from tunery.worker.loop import Worker
from tunery.worker.portal import Portal
from tunery.worker.reporter import ChildReporter
from tunery.worker.stages import Stages
from tunery.worker.sweep import (
    end_uploads,
    forget_old_keys,
    remove_ended_caches,
    remove_expired_files,
    remove_expired_responses,
)
from tunery.worker.tracking import Tracking


def build_executor(settings: Settings) -> LocalExecutor:
    """Return what runs training in processes of its own."""
    return LocalExecutor({"TUNERY_DATA": str(settings.data_path)})


def build_worker(settings: Settings, *, supervised: bool = False) -> Worker:
    """Return the worker over the parts that the settings name.

    `supervised` says that somebody starts the engines that are wanted.
    """
    database = open_database(settings)
    blobs = open_blobs(settings)
    blobs.sweep()
    caches = open_caches(settings)
    caches.sweep()
    log = logger()
    reports = settings.wandb.mode != "disabled"
    children = {"TUNERY_DATA": str(settings.data_path)}
    parts = build_parts(settings, database, blobs, supervised=supervised)
    portal = Portal()
    stages = Stages(
        database=database,
        blobs=blobs,
        caches=caches,
        directory=parts.directory,
        renderers=renderer_of,
        engine=parts.engine,
        executor=build_executor(settings),
        portal=portal,
        tolerance=Tolerance(
            settings.training.proof_mean,
            settings.training.proof_max,
            settings.training.proof_sequences,
        ),
        tracking=Tracking(database, ChildReporter(children) if reports else None, log),
        batches=BatchWork(
            database=database,
            blobs=blobs,
            portal=portal,
            answer=partial(registry.reply, parts),
            concurrency=settings.batch_concurrency,
            log=log,
        ),
        log=log,
    )
    courier = Courier(
        database,
        build_sender(settings),
        first_wait_s=settings.webhooks.retry_s,
        lease_s=settings.lease_s,
        poll_s=settings.poll_s,
        log=log,
    )
    acts = (
        ("idempotency keys", forget_old_keys(database)),
        ("files", remove_expired_files(database, blobs)),
        ("uploads", end_uploads(database, blobs)),
        ("responses", remove_expired_responses(database)),
        ("batches", end_overdue(database)),
        ("token caches", remove_ended_caches(database, caches)),
    )
    return Worker(
        database,
        stages,
        courier,
        acts,
        lease_s=settings.lease_s,
        poll_s=settings.poll_s,
        sweep_s=settings.sweep_s,
        log=log,
    )
