"""The worker process. Training runs in children of its own, so no torch comes in here either."""

from tunery.inference.embedded import EmbeddedEngine
from tunery.services.publishing import Tolerance
from tunery.settings import Settings
from tunery.telemetry import logger
from tunery.wiring.outgoing import build_sender
from tunery.wiring.storage import (
    engine_file,
    open_blobs,
    open_database,
    open_directory,
    renderer_of,
)
from tunery.worker.deliveries import Courier
from tunery.worker.executor import LocalExecutor
from tunery.worker.loop import Worker
from tunery.worker.portal import Portal
from tunery.worker.stages import Stages
from tunery.worker.sweep import forget_old_keys, remove_expired_responses


def build_worker(settings: Settings) -> Worker:
    """Return the worker over the parts that the settings name."""
    database = open_database(settings)
    blobs = open_blobs(settings)
    blobs.sweep()
    log = logger()
    stages = Stages(
        database=database,
        blobs=blobs,
        directory=open_directory(settings),
        renderers=renderer_of,
        engine=EmbeddedEngine(engine_file(settings), blobs),
        executor=LocalExecutor({"TUNERY_DATA": str(settings.data_path)}),
        portal=Portal(),
        tolerance=Tolerance(
            settings.training.proof_mean,
            settings.training.proof_max,
            settings.training.proof_sequences,
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
        ("responses", remove_expired_responses(database)),
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
