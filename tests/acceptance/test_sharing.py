"""Serving and training on one machine: half the cores each, or as the operator says."""

import os
from pathlib import Path

import pytest

from support.server import (
    BASE,
    Process,
    Server,
    ask,
    chat_lines,
    last_step,
    method,
    poll,
    upload,
)

ENGINE_THREADS, TRAINING_THREADS = 12, 9  # with one compute thread, neither process has five
NICE = 3


def test_engine_and_training_have_the_threads_and_the_niceness_of_the_settings(
    models: Path, tmp_path: Path
) -> None:
    settings = {
        "TUNERY_ENGINE__THREADS": str(ENGINE_THREADS),
        "TUNERY_TRAINING__THREADS": str(TRAINING_THREADS),
        "TUNERY_TRAINING__NICE": str(NICE),
        "OMP_NUM_THREADS": "1",  # what torch would take
    }
    with Server(tmp_path, models, **settings) as server:
        client = server.client()
        file = upload(client, chat_lines(100))
        job = client.fine_tuning.jobs.create(
            model=BASE, training_file=file.id, method=method(n_epochs=50, batch_size=1)
        )
        training = server.child("child train")
        poll(lambda: last_step(client, job.id) > 0, "the first step")
        assert len(ask(client, BASE)) > 0  # beside it
        engine, worker = server.child("engine"), server.child("work")
        assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
        assert threads(training) >= TRAINING_THREADS
        assert threads(engine) >= ENGINE_THREADS
        assert niceness(training) == min(19, niceness(worker) + NICE)
        assert niceness(engine) == niceness(worker)
        client.fine_tuning.jobs.cancel(job.id)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is not shared")
def test_a_run_has_half_of_the_cores_while_answers_are_made_and_all_after(
    models: Path, tmp_path: Path
) -> None:
    every = os.sched_getaffinity(0)
    half = set(sorted(every)[(len(every) + 1) // 2 :])
    shared = {"TUNERY_ENGINE__THREADS": "0", "TUNERY_TRAINING__THREADS": "0"}
    with Server(tmp_path, models, **shared) as server:
        client = server.client()
        file = upload(client, chat_lines(1000))
        job = client.fine_tuning.jobs.create(
            model=BASE, training_file=file.id, method=method(n_epochs=50, batch_size=1)
        )
        training = server.child("child train")
        poll(lambda: last_step(client, job.id) > 0, "the first step")

        def kept() -> bool:
            ask(client, BASE)
            return os.sched_getaffinity(training.pid) == half

        poll(kept, "the run on half of the cores")
        poll(lambda: os.sched_getaffinity(training.pid) == every, "the run on every core again")
        assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
        client.fine_tuning.jobs.cancel(job.id)


def threads(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def niceness(process: Process) -> int:
    return os.getpriority(os.PRIO_PROCESS, process.pid)
