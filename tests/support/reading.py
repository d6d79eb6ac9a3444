"""How much memory a process of its own needs to check, to prepare, or to read a training file.

Run as `python -m support.reading ACT FILE MODEL FOLDER`; prints the most that it took, in bytes.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from support.text_model import make_merging_tokenizer, write_text_model
from tunery.datasets.batches import epoch_batches
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.files import FileStatus
from tunery.domain.tasks import Task, TaskKind
from tunery.services import validation
from tunery.storage.blobs import CHUNK, LocalBlobStore
from tunery.storage.catalogue import Catalogue
from tunery.storage.database import Database
from tunery.storage.migrate import migrate
from tunery.training.data import load_examples

CONTEXT_TOKENS = 512  # of the tiny model
_WORDS = ("when", "the", "order", "that", "came", "in", "late", "has", "not", "been", "paid", "for")


def write_chats(path: Path, size_bytes: int) -> int:
    """Write a training file of about that size; return how many lines it has."""
    generator = random.Random(size_bytes)
    lines = written = 0
    with path.open("wb") as file:
        while written < size_bytes:
            said = [" ".join(generator.choices(_WORDS, k=generator.randrange(5, 90))) for _ in "qa"]
            turns = zip(("user", "assistant"), said, strict=True)
            messages = [{"role": role, "content": content} for role, content in turns]
            written += file.write(orjson.dumps({"messages": messages}) + b"\n")
            lines += 1
    return lines


def write_wordy_model(folder: Path) -> Path:
    """Write a model whose tokenizer knows words, so that what it remembers of them stays small.

    It has no weights: nothing here computes.
    """
    config = {"max_position_embeddings": CONTEXT_TOKENS}
    write_text_model(folder, make_merging_tokenizer(), config=config)
    (folder / "model.safetensors").touch()
    return folder


def peak_bytes(act: str, file: Path, model: Path, folder: Path) -> int:
    """Return the most memory that a new process has needed for an act."""
    command = [sys.executable, "-m", "support.reading", act, str(file), str(model), str(folder)]
    tests = str(Path(__file__).parents[1])
    found = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": found}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def _check(file: Path, model: Path, folder: Path) -> None:
    """Check a file as the worker does, and prepare a job on it."""
    from support.rows import OURS, a_file, a_job, render_with  # these import torch

    database, blobs = Database(f"sqlite:///{folder / 'tunery.db'}"), LocalBlobStore(folder)
    migrate(database)
    stored = a_file(status=FileStatus.UPLOADED)
    with blobs.writer(stored.blob_key) as writer, file.open("rb") as source:
        while chunk := source.read(CHUNK):
            writer.write(chunk)
        writer.commit()
    with database.write() as tx:
        tx.files(OURS).add(stored)
        tx.queue.add(OURS, TaskKind.CHECK_FILE, stored.id)
    status = validation.check_uploaded_file(database, blobs, _claim(database, TaskKind.CHECK_FILE))
    assert status is FileStatus.PROCESSED
    base = Catalogue(folder / "models").add("tiny", model, aliases=(), learning_rate=1e-3)
    with database.write() as tx:
        tx.jobs(OURS).add(a_job(base_digest=base.digest))
        tx.queue.add(OURS, TaskKind.PREPARE_JOB, "ftjob-1")
    validation.prepare_job(
        database, blobs, base, render_with, _claim(database, TaskKind.PREPARE_JOB)
    )
    assert _claim(database, TaskKind.TRAIN_JOB).subject == "ftjob-1"


def _read(file: Path, model: Path, folder: Path) -> None:
    """Make the token cache, and read every example of an epoch in its order."""
    read = load_examples(
        lambda: _chunks(file),
        ChatRenderer.load(model),
        CONTEXT_TOKENS,
        base_digest="d" * 64,
        folder=folder,
        make_room=lambda _: None,
    )
    tokens = 0
    for batch in epoch_batches(read.examples.lengths, 4, seed=1, epoch=0):
        tokens += sum(len(read.examples[index].token_ids) for index in batch)
    assert tokens == sum(read.examples.lengths) > 0


def _claim(database: Database, kind: TaskKind) -> Task:
    with database.write() as tx:
        task = tx.queue.claim([kind], 60)
    assert task is not None, kind
    return task


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


ACTS: dict[str, Callable[[Path, Path, Path], None]] = {"check": _check, "read": _read}

if __name__ == "__main__":
    ACTS[sys.argv[1]](*map(Path, sys.argv[2:]))
    # Of this program alone: the most that a process ever took counts its time as a copy of its
    # parent, too.
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.partition("VmHWM:")[2].split()[0]))
