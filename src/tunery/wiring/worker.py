"""The worker process. Training runs in children of its own, so no torch comes in here either."""

from tunery.inference.embedded import EmbeddedEngine
from tunery.services.publishing import Tolerance
from tunery.settings import Settings
from tunery.telemetry import logger
from tunery.wiring.storage import (
    engine_file,
    open_blobs,
    open_database,
    open_directory,
    renderer_of,
)
from tunery.worker.executor import LocalExecutor
from tunery.worker.loop import Worker
from tunery.worker.portal import Portal
from tunery.worker.reporter import ChildReporter
from tunery.worker.stages import Stages
from tunery.worker.sweep import forget_old_keys
from tunery.worker.tracking import Tracking


def build_worker(settings: Settings) -> Worker:
    """Return the worker over the parts that the settings name."""
    database = open_database(settings)
    blobs = open_blobs(settings)
    blobs.sweep()
    log = logger()
    reports = settings.wandb.mode != "disabled"
    children = {"TUNERY_DATA": str(settings.data_path)}
    stages = Stages(
        database=database,
        blobs=blobs,
        directory=open_directory(settings),
        renderers=renderer_of,
        engine=EmbeddedEngine(engine_file(settings), blobs),
        executor=LocalExecutor(children),
        portal=Portal(),
        tolerance=Tolerance(
            settings.training.proof_mean,
            settings.training.proof_max,
            settings.training.proof_sequences,
        ),
        tracking=Tracking(database, ChildReporter(children) if reports else None, log),
        log=log,
    )
    acts = (("idempotency keys", forget_old_keys(database)),)
    return Worker(
        database,
        stages,
        acts,
        lease_s=settings.lease_s,
        poll_s=settings.poll_s,
        sweep_s=settings.sweep_s,
        log=log,
    )
