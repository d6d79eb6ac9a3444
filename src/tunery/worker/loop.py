"""The worker: lanes that claim tasks and carry them out, until told to stop.

The light lane checks files and batches, prepares jobs and writes the files of batches that end; the
heavy one trains and publishes, one job at a time, a finished run first; the third has batches
answered. So a long training never keeps an upload from being checked. A courier delivers webhooks
in a lane of its own, and a sweeper runs beside them.
"""

import threading
from collections.abc import Sequence

from tunery.domain.errors import TuneryError
from tunery.domain.tasks import Task, TaskKind
from tunery.storage.database import Database
from tunery.telemetry import Logger
from tunery.worker.deliveries import Courier
from tunery.worker.lease import Lease
from tunery.worker.stages import Stages
from tunery.worker.sweep import Act, Sweeper

# Each lane looks for these in order.
LIGHT = ((TaskKind.CHECK_FILE, TaskKind.PREPARE_JOB, TaskKind.CHECK_BATCH, TaskKind.END_BATCH),)
HEAVY = ((TaskKind.PUBLISH_JOB, TaskKind.KEEP_CHECKPOINTS), (TaskKind.TRAIN_JOB,))
BATCHES = ((TaskKind.RUN_BATCH,),)
LANES = (("light", LIGHT), ("heavy", HEAVY), ("batches", BATCHES))


class Worker:
    """Claims and carries out tasks, a thread a lane."""

    def __init__(
        self,
        database: Database,
        stages: Stages,
        courier: Courier,
        acts: Sequence[tuple[str, Act]],
        *,
        lease_s: float,
        poll_s: float,
        sweep_s: float,
        log: Logger,
    ) -> None:
        self._database = database
        self._stages = stages
        self._courier = courier
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._log = log
        self._stopping = threading.Event()
        self._sweeper = Sweeper(acts, every_s=sweep_s, stopping=self._stopping)

    def run(self) -> None:
        """Work until `stop`."""
        lanes = [
            threading.Thread(target=self._lane, args=(kinds,), name=name, daemon=True)
            for name, kinds in LANES
        ]
        lanes.append(
            threading.Thread(
                target=self._courier.run, args=(self._stopping,), name="webhooks", daemon=True
            )
        )
        for lane in lanes:
            lane.start()
        threading.Thread(
            target=self._sweeper.run, args=(self._log,), name="sweeper", daemon=True
        ).start()
        for lane in lanes:
            lane.join()
        self._stages.close()

    def stop(self) -> None:
        """Claim no more, and give a training run back: it goes on elsewhere from its snapshot."""
        self._stopping.set()

    def _lane(self, order: Sequence[Sequence[TaskKind]]) -> None:
        while not self._stopping.is_set():
            task = self._claim(order)
            if task is None:
                self._stopping.wait(self._poll_s)
                continue
            try:
                with Lease(self._database, task, self._lease_s, self._stopping) as lease:
                    self._stages.run(task, lease)
            except Exception:  # a lane that ended would never be missed
                self._log.exception("lane stumbled", task=task.kind, subject=task.subject)

    def _claim(self, order: Sequence[Sequence[TaskKind]]) -> Task | None:
        try:
            for kinds in order:
                with self._database.read() as tx:  # looking takes no write lock
                    waiting = tx.queue.has_free(kinds)
                if waiting:
                    with self._database.write() as tx:
                        task = tx.queue.claim(kinds, self._lease_s)
                    if task is not None:
                        return task
        except TuneryError as error:
            self._log.warning("queue not reached", error=error.message)
        return None
