"""Records to store in tests, and what a service needs beside a database."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.tiny import CONTEXT
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.batches import Batch, BatchStatus
from tunery.domain.files import FilePurpose, FileStatus, StoredFile
from tunery.domain.jobs import (
    Adapter,
    Checkpoint,
    EpochCheckpoint,
    Job,
    JobStatus,
    LogEntry,
    RequestedHyperparameters,
    StepMetrics,
)
from tunery.domain.models import BaseModel, Prices, TunedModel
from tunery.domain.tenants import Tenant
from tunery.domain.uploads import MultipartUpload, UploadStatus
from tunery.services.models import ModelDirectory
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.catalogue import Catalogue

OURS = Tenant("org-1", "acme", "proj_ours")
THEIRS = Tenant("org-1", "acme", "proj_theirs")  # the same organization's other project
CONTEXT_TOKENS = CONTEXT  # of the tiny model
DEADLINE_S = 30.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Poll until `condition` holds; fail the test after a generous time."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"never seen: {what}"
        time.sleep(0.01)


def a_file(file_id: str = "file-1", **changes: Any) -> StoredFile:
    """Return a checked training file."""
    file = StoredFile(
        id=file_id,
        filename="train.jsonl",
        purpose=FilePurpose.FINE_TUNE,
        size_bytes=12,
        sha256="0" * 64,
        blob_key=f"p/files/{file_id}",
        status=FileStatus.PROCESSED,
        status_details=None,
        created_at=1_700_000_000,
    )
    return dataclasses.replace(file, **changes)


def an_upload(upload_id: str = "upload_1", **changes: Any) -> MultipartUpload:
    """Return a pending upload of a training file, which expires an hour from now."""
    now = int(time.time())
    upload = MultipartUpload(
        id=upload_id,
        filename="train.jsonl",
        purpose=FilePurpose.FINE_TUNE,
        mime_type="text/jsonl",
        size_bytes=12,
        status=UploadStatus.PENDING,
        file_id=None,
        completion_digest=None,
        file_expires_after_s=None,
        created_at=now,
        expires_at=now + 3600,
    )
    return dataclasses.replace(upload, **changes)


def a_job(job_id: str = "ftjob-1", **changes: Any) -> Job:
    """Return a job that was just created."""
    job = Job(
        id=job_id,
        model="tiny",
        base="tiny",
        base_digest="d" * 64,
        parent_model=None,
        training_file="file-1",
        validation_file=None,
        suffix=None,
        seed=7,
        requested=RequestedHyperparameters(),
        resolved=None,
        metadata=None,
        status=JobStatus.VALIDATING_FILES,
        error=None,
        trained_tokens=None,
        fine_tuned_model=None,
        result_files=(),
        created_at=1_700_000_000,
        started_at=None,
        finished_at=None,
    )
    return dataclasses.replace(job, **changes)


def a_batch(batch_id: str = "batch_1", **changes: Any) -> Batch:
    """Return a batch that was just created."""
    batch = Batch(
        id=batch_id,
        key_id="key_1",
        endpoint="/v1/chat/completions",
        input_file_id="file-1",
        completion_window="24h",
        output_expires_after_s=None,
        metadata=None,
        status=BatchStatus.VALIDATING,
        errors=(),
        model=None,
        output_file_id=None,
        error_file_id=None,
        total=0,
        completed=0,
        failed=0,
        input_tokens=0,
        output_tokens=0,
        created_at=1_700_000_000,
        expires_at=4_000_000_000,
    )
    return dataclasses.replace(batch, **changes)


def batch_line(number: int, **changes: Any) -> bytes:
    """Return a line of a batch's input file."""
    line = {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-tiny", "number": number},
        **changes,
    }
    return orjson.dumps(line) + b"\n"


def batch_lines(count: int) -> bytes:
    """Return a batch's input file: lines 1 to `count`."""
    return b"".join(batch_line(number) for number in range(1, count + 1))


def an_entry(number: int, *, metrics: StepMetrics | None = None) -> LogEntry:
    """Return a line of a job's story."""
    return LogEntry(
        id=f"ftevent-{number}",
        created_at=1_700_000_000,
        level="info",
        kind="message" if metrics is None else "metrics",
        message=f"line {number}",
        data=None if metrics is None else dataclasses.asdict(metrics),
    )


def some_metrics(step: int) -> StepMetrics:
    """Return the numbers of a step."""
    return StepMetrics(
        step=step, total_steps=9, train_loss=1 / (step + 1), train_mean_token_accuracy=0.5
    )


def an_epoch(step: int, job_id: str = "ftjob-1") -> EpochCheckpoint:
    """Return the adapter of an epoch that ended with `step`."""
    adapter = Adapter(f"p/jobs/{job_id}/step-{step}", f"{step:064d}")
    return EpochCheckpoint(step, step, adapter, some_metrics(step))


def a_checkpoint(step: int, job_id: str = "ftjob-1") -> Checkpoint:
    """Return a published checkpoint."""
    name = f"ft:tiny:acme::{step:08d}"
    return Checkpoint(
        f"ftckpt_{step}", job_id, step, name, some_metrics(step).told(), 1_700_000_000
    )


def a_model(name: str = "ft:tiny:acme::aaaaaaaa", **changes: Any) -> TunedModel:
    """Return a tuned model."""
    adapter = Adapter("p/jobs/ftjob-1/attempt-1/step-9", "9" * 64)
    model = TunedModel(name, "ftjob-1", "tiny", "d" * 64, adapter, 1_700_000_000)
    return dataclasses.replace(model, **changes)


def chat_line(answer: str = "Hello.", **extra: Any) -> bytes:
    """Return a training line."""
    messages = [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": answer},
    ]
    return orjson.dumps({"messages": messages, **extra}) + b"\n"


def chat_lines(count: int) -> bytes:
    """Return a training file."""
    return b"".join(chat_line(f"Answer {number}.") for number in range(count))


def chunks(data: bytes, size: int) -> Sequence[bytes]:
    """Cut `data` into pieces of `size`."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def render_with(base: BaseModel) -> ChatRenderer:
    """Return the base's own renderer."""
    return ChatRenderer.load(Path(base.path))


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    """Return an empty blob store."""
    return LocalBlobStore(tmp_path / "store")


@pytest.fixture
def directory(tiny_model: Path, tmp_path: Path) -> ModelDirectory:
    """Return a catalogue with the tiny model as `tiny`, also called `gpt-tiny`."""
    catalogue = Catalogue(tmp_path / "catalogue")
    prices = Prices(
        training=Decimal("8"),
        input=Decimal("1.5"),
        output=Decimal("2"),
        tuned_input=Decimal("12"),
        tuned_output=Decimal("16"),
    )
    catalogue.add("tiny", tiny_model, aliases=("gpt-tiny",), learning_rate=1e-3, prices=prices)
    return ModelDirectory(catalogue, "tiny")
