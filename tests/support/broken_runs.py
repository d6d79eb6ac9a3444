"""Training jobs whose disk fails at each of its operations in turn, each then carried out again.

Run as a program, so that each attempt is a process of its own without a start of its own: a fork
of one that has only imported what it needs. It prints a line of JSON a fault. An attempt is what
worker and training process do together: the trainer reports, and its reports become rows.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa

from support.failing_disk import DEATH, OPERATIONS, Fault, failing_disk
from support.rows import OURS, a_file, a_job
from support.training_runs import ALWAYS, put, put_pairs, turns
from tunery.domain.errors import TuneryError
from tunery.domain.jobs import Hyperparameters, JobStatus, TrainingMethod
from tunery.domain.ports.training import TrainingReport
from tunery.domain.tasks import TaskKind
from tunery.services import training
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database
from tunery.storage.tables import tasks
from tunery.training.cache_folder import CacheFolder
from tunery.training.loop import LocalTrainer

CHATS = [turns(f"question {n}" + "." * n, "the answer") for n in range(7)]
ERRORS = (errno.ENOSPC, errno.EIO)
INTERRUPTED = 3  # the exit code of an attempt that ended in an error of ours


@dataclass(frozen=True, slots=True)
class Tried:
    """A fault, what it did to the attempt, and what the next attempt came to."""

    operation: str
    nth: int
    how: str
    end: str  # of the attempt with the fault: untouched, died, interrupted, or something else
    unwhole: list[str]  # what its records name and is not on disk as it was written
    same: bool  # the next attempt ended with the bytes of the attempt without any fault
    first_step: int  # of the next attempt


def make_job(folder: Path, empty: Path, method: str, epochs: int, batch: int) -> None:
    """Write a job that waits to be trained: database and training file."""
    shutil.copyfile(empty, folder / "tunery.db")
    database, blobs = Database(f"sqlite:///{folder}/tunery.db"), LocalBlobStore(folder / "data")
    file = a_file()
    if method == "dpo":
        put_pairs(blobs, file.blob_key, len(CHATS))
    else:
        put(blobs, file.blob_key, CHATS)
    beta = 0.2 if method == "dpo" else None
    numbers = Hyperparameters(epochs, batch, 2.0, beta)
    job = a_job(status=JobStatus.QUEUED, resolved=numbers, method=TrainingMethod(method))
    with database.write() as tx:
        tx.files(OURS).add(file)
        tx.jobs(OURS).add(job)
        tx.queue.add(OURS, TaskKind.TRAIN_JOB, job.id)
    database.close()


def attempt(folder: Path, base: Path, fault: Fault | None) -> int:
    """Train the job, or what is left of it; return an exit code."""
    database, blobs = Database(f"sqlite:///{folder}/tunery.db"), LocalBlobStore(folder / "data")
    with database.write() as tx:
        tx._connection.execute(sa.update(tasks).values(lease_until=0))  # of one that has died
        task = tx.queue.claim([TaskKind.TRAIN_JOB], 600)
    assert task is not None
    run = training.begin_run(database, task)
    assert run is not None
    caches = CacheFolder(folder / "data" / "tokens", 2**30)
    trainer = LocalTrainer(blobs, base, 2.5e-3, 1, ALWAYS, caches)

    def report(report: TrainingReport) -> None:
        training.record(database, blobs, task, report)

    try:
        if fault is None:
            trainer.train(run, report)
        else:
            with failing_disk(folder / "data", fault) as disk:
                trainer.train(run, report)
            assert disk.done < fault.nth, "a fault was passed over"
    except TuneryError as error:
        print(error.message, file=sys.stderr)
        with database.write() as tx:
            tx.queue.put_back(task, 0.0)
        return INTERRUPTED
    return 0


def forked(folder: Path, base: Path, fault: Fault | None) -> int:
    """Make an attempt in a process of its own; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = attempt(folder, base, fault)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def records(folder: Path) -> tuple[list[tuple[str, str]], dict[int, str], int]:
    """Return what is recorded of the job.

    That is key and digest of each file with one, the digests of the epochs' adapters by step, and
    the step of the snapshot.
    """
    database = Database(f"sqlite:///{folder}/tunery.db")
    with database.read() as tx:
        snapshot = tx.jobs(OURS).snapshot("ftjob-1")
        made = tx.jobs(OURS).epoch_checkpoints("ftjob-1")
    database.close()
    known = [(f"{one.adapter.key}/adapter_model.safetensors", one.adapter.digest) for one in made]
    if snapshot is not None:
        known.append((snapshot.key, str(snapshot.digest)))
    step = 0 if snapshot is None else snapshot.step
    return known, {one.step: one.adapter.digest for one in made}, step


def try_fault(fault: Fault, base: Path, clean: Path, folder: Path, wanted: dict[int, str]) -> Tried:
    """Have a fault happen to the job of `clean`, then carry it out again without."""
    shutil.copytree(clean, folder)
    code = forked(folder, base, fault)
    ends = {0: "untouched", DEATH: "died", INTERRUPTED: "interrupted"}
    known, _, step = records(folder)
    unwhole = [key for key, digest in known if _digest(folder / "data/blobs" / key) != digest]
    same = code == 0 or forked(folder, base, None) == 0
    known, digests, _ = records(folder)
    unwhole += [key for key, digest in known if _digest(folder / "data/blobs" / key) != digest]
    shutil.rmtree(folder)
    return Tried(
        fault.operation,
        fault.nth,
        "death" if fault.errno is None else errno.errorcode[fault.errno],
        ends.get(code, f"exit code {code}"),
        unwhole,
        same and digests == wanted,
        step + 1,
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "gone"


def tried_faults(
    base: Path, empty: Path, folder: Path, method: str, epochs: int, batch: int
) -> list[Tried]:
    """Run the program and return what it has found."""
    numbers = (str(epochs), str(batch))
    done = subprocess.run(
        [sys.executable, "-m", "support.broken_runs", base, empty, folder, method, *numbers],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [Tried(**json.loads(line)) for line in done.stdout.splitlines()]


def assert_survived(tried: Sequence[Tried], operations: Mapping[str, int]) -> None:
    """Hold that each fault of so many operations was survived, and that all of them were tried."""
    for operation, count in operations.items():
        for dies in (True, False):
            own = [one for one in tried if (one.operation, one.how == "death") == (operation, dies)]
            end = "died" if dies else "interrupted"
            assert [one.end for one in own] == [end] * count + ["untouched"], (operation, dies)
    assert [one for one in tried if one.unwhole] == []
    assert [one for one in tried if not one.same] == []


def main(base: Path, empty: Path, folder: Path, method: str, epochs: int, batch: int) -> None:
    """Try every fault; the last of each kind comes after all operations and touches nothing."""
    clean, whole = folder / "clean", folder / "whole"
    clean.mkdir()
    make_job(clean, empty, method, epochs, batch)
    shutil.copytree(clean, whole)
    assert forked(whole, base, None) == 0
    wanted = records(whole)[1]
    assert len(wanted) == epochs
    for operation in OPERATIONS:
        for dies in (True, False):
            nth, tried = 0, None
            while tried is None or tried.end != "untouched":
                nth += 1
                fault = Fault(operation, nth, None if dies else ERRORS[nth % len(ERRORS)])
                tried = try_fault(fault, base, clean, folder / "tried", wanted)
                print(json.dumps(asdict(tried)), flush=True)


if __name__ == "__main__":
    folders, numbers = [Path(one) for one in sys.argv[1:4]], sys.argv[5:7]
    main(folders[0], folders[1], folders[2], sys.argv[4], int(numbers[0]), int(numbers[1]))
