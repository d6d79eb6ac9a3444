"""Serving and training on one machine: threads and niceness are the operator's."""

import os
from pathlib import Path

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


def threads(process: Process) -> int:
    return len(list(Path(f"/proc/{process.pid}/task").iterdir()))


def niceness(process: Process) -> int:
    return os.getpriority(os.PRIO_PROCESS, process.pid)
