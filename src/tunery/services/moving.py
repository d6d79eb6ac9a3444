"""A project moves in from a service that speaks OpenAI's API: looked at first, then brought over.

What is here already is the state that a second run goes on from: an object is either in the
database, whole, or it is not. Files come before the jobs that name them, a file's bytes before its
row, and a job with its whole story in one transaction. Ids, names and times stay as they were.
"""

import base64
import binascii
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tunery.domain.errors import InvalidRequest, NotFound, TuneryError
from tunery.domain.files import FilePurpose, FileStatus, StoredFile
from tunery.domain.imports import (
    BrokenOff,
    SourceFile,
    SourceModel,
    SourceUsage,
)
from tunery.domain.jobs import Checkpoint, Job, LogEntry
from tunery.domain.ports.blobs import BlobStore, BlobWriter
from tunery.domain.ports.source import Source
from tunery.domain.tasks import TaskKind
from tunery.domain.tenants import Tenant
from tunery.services.jobs import log
from tunery.storage.database import Database

TRIES = 5  # of a file whose bytes break off
MOVED = (FilePurpose.FINE_TUNE, FilePurpose.FINE_TUNE_RESULTS)
_DAY_S = 86_400
_USAGE_DAYS = 30
_MAX_RESULTS_BYTES = 64 * 1024 * 1024  # of a result file, which is taken into memory

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Left:
    """What does not move, by id or name, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is at the source, and what of it is to come."""

    source: str
    models: tuple[SourceModel, ...]
    jobs: tuple[Job, ...]  # to come, oldest first
    jobs_here: int
    files: tuple[SourceFile, ...]  # to come, oldest first
    files_here: int
    left: tuple[Left, ...]
    other_files: Mapping[str, int]  # purposes that have nothing to do with tuning, and how many
    usage: tuple[SourceUsage, ...] | None  # of the last days; None where it may not be seen

    @property
    def size_bytes(self) -> int:
        """Return how many bytes the files to come have, as far as that is known."""
        return sum(file.size_bytes or 0 for file in self.files)


@dataclass(slots=True)
class Brought:
    """What a run has brought, and what it could not."""

    jobs: int = 0
    files: int = 0
    size_bytes: int = 0
    failed: list[Left] = field(default_factory=list)


def look(database: Database, tenant: Tenant, source: Source) -> Plan:
    """Return what is to be done; nothing is changed, neither here nor there."""
    now = int(time.time())
    models = source.models()
    listed = source.jobs()
    left = [Left(one.id, one.problem) for one in listed if one.job is None]
    jobs = [one.job for one in listed if one.job is not None]
    there = {file.id: file for file in source.files()}
    for job in jobs:
        for file_id in files_of(job):
            if file_id not in there and (found := source.file(file_id)) is not None:
                there[file_id] = found
    with database.read() as tx:
        known_jobs = {job.id for job in jobs if tx.jobs(tenant).get(job.id) is not None}
        wanted = {file_id for job in jobs for file_id in files_of(job)}
        known_files = {
            file_id
            for file_id in (*there, *(wanted - there.keys()))
            if tx.files(tenant).get(file_id) is not None
        }
    moved = [file for file in there.values() if _moves(file, wanted)]
    expired = [file for file in moved if file.expires_at is not None and file.expires_at <= now]
    gone = dict.fromkeys(wanted - there.keys(), "deleted there")
    gone |= {file.id: "expired there" for file in expired}
    left += [
        Left(file_id, _without(file_id, why, jobs))
        for file_id, why in sorted(gone.items())
        if file_id not in known_files
    ]
    left += _orphans(models, jobs)
    coming = [file for file in moved if file not in expired and file.id not in known_files]
    others = Counter(file.purpose for file in there.values() if not _moves(file, wanted))
    usage = source.usage(now - _USAGE_DAYS * _DAY_S)
    return Plan(
        source=source.address,
        models=tuple(models),
        jobs=tuple(job for job in jobs if job.id not in known_jobs),
        jobs_here=len(known_jobs),
        files=tuple(coming),
        files_here=len(known_files),
        left=tuple(left),
        other_files=dict(sorted(others.items())),
        usage=None if usage is None else tuple(usage),
    )


def bring(
    database: Database, blobs: BlobStore, tenant: Tenant, source: Source, plan: Plan, tell: Tell
) -> Brought:
    """Carry the plan out. What fails by itself is told and left; a second run takes it up."""
    brought = Brought()
    for file in plan.files:
        try:
            size = _fetch(database, blobs, tenant, source, file)
        except NotFound:
            brought.failed.append(Left(file.id, _without(file.id, "gone there", plan.jobs)))
        except _Damaged as error:
            brought.failed.append(Left(file.id, str(error)))
        else:
            brought.files += 1
            brought.size_bytes += size
            tell(f"{file.id}  {file.filename}  {size} bytes")
    for job in plan.jobs:
        entries, checkpoints = source.events(job.id), source.checkpoints(job.id)
        if _keep_job(database, tenant, job, entries, checkpoints):
            brought.jobs += 1
            tell(f"{job.id}  {len(entries)} events, {len(checkpoints)} checkpoints")
    return brought


def files_of(job: Job) -> Iterator[str]:
    """Yield the files that a job names."""
    yield job.training_file
    if job.validation_file is not None:
        yield job.validation_file
    yield from job.result_files


def add_file(
    database: Database, blobs: BlobStore, tenant: Tenant, file_id: str, name: str, data: bytes
) -> bool:
    """Keep a training file that its owner still has, under the id that it had; return whether new.

    Raises InvalidRequest where no imported job names it.
    """
    with database.read() as tx:
        if tx.files(tenant).get(file_id) is not None:
            return False
        known = any(file_id in files_of(job) for job in tx.jobs(tenant).imported())
    if not known:
        raise InvalidRequest(
            f"No imported job names the file {file_id[:80]}; give the id that the plan shows."
        )
    file = SourceFile(file_id, name, FilePurpose.FINE_TUNE, len(data), int(time.time()), None)
    with _receiving(database, blobs, tenant, file) as taken:
        taken.write(data)
    return True


# ---- the plan


def _moves(file: SourceFile, wanted: set[str]) -> bool:
    return file.purpose in MOVED or file.id in wanted


def _without(file_id: str, why: str, jobs: Sequence[Job]) -> str:
    """Say what the lack of a file means for the jobs that name it."""
    trained = [job.id for job in jobs if job.training_file == file_id]
    checked = [job.id for job in jobs if job.validation_file == file_id]
    if trained:
        verb = "was" if len(trained) == 1 else "were"
        return (
            f"{why}; {', '.join(trained)} {verb} trained on it, and cannot be trained anew unless"
            f" you have it: --file {file_id}=PATH"
        )
    if checked:
        return f"{why}; {', '.join(checked)} would be trained anew without validation"
    return why


def _orphans(models: Sequence[SourceModel], jobs: Sequence[Job]) -> Iterator[Left]:
    """Yield the models of which there is no job: nothing tells what they were trained on."""
    made = {job.fine_tuned_model for job in jobs}
    for model in models:
        if model.name not in made and ":ckpt-step-" not in model.name:
            yield Left(model.name, "no job that can move has made it")


# ---- files


class _Damaged(TuneryError):
    """The bytes that came are not those that were announced."""


class _Taken:
    """A file on its way in."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        self._digest.update(chunk)
        self._writer.write(chunk)


def _fetch(
    database: Database, blobs: BlobStore, tenant: Tenant, source: Source, file: SourceFile
) -> int:
    """Bring a file over and return its size; try again where its bytes break off."""
    why = ""
    for _ in range(TRIES):
        try:
            with (
                source.content(file.id) as chunks,
                _receiving(database, blobs, tenant, file) as taken,
            ):
                if file.purpose == FilePurpose.FINE_TUNE_RESULTS:
                    taken.write(_results(file, chunks))
                else:
                    for chunk in chunks:
                        taken.write(chunk)
                    _check_size(file, taken.size_bytes)
            return taken.size_bytes
        except (BrokenOff, _Damaged) as error:
            why = error.message
    raise _Damaged(f"not whole after {TRIES} tries: {why}. Run this again")


def _check_size(file: SourceFile, *sizes: int) -> None:
    if file.size_bytes is not None and file.size_bytes not in sizes:
        raise _Damaged(f"got {sizes[0]} bytes of {file.size_bytes}")


def _results(file: SourceFile, chunks: Iterator[bytes]) -> bytes:
    """Return the CSV of a result file, which the service gives as base64 text, or as it is."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > _MAX_RESULTS_BYTES:
            raise _Damaged(f"a result file of more than {_MAX_RESULTS_BYTES} bytes")
    given = bytes(data)
    try:
        plain = base64.b64decode(given.strip(), validate=True)
    except binascii.Error:
        plain = given
    _check_size(file, len(given), len(plain))  # which of the two is announced is nowhere said
    return plain


@contextmanager
def _receiving(
    database: Database, blobs: BlobStore, tenant: Tenant, file: SourceFile
) -> Iterator[_Taken]:
    """Open a file; leaving the block makes it durable, then known. With an error nothing stays.

    Its key follows from its id, so what a killed run has left there is replaced.
    """
    key = f"{tenant.project_id}/files/{file.id}"
    results = file.purpose == FilePurpose.FINE_TUNE_RESULTS
    with blobs.writer(key) as writer:
        taken = _Taken(writer)
        yield taken
        writer.commit()
    with database.write() as tx:
        if tx.files(tenant).get(file.id) is not None:  # another run was quicker, with these bytes
            return
        tx.files(tenant).add(
            StoredFile(
                id=file.id,
                filename=file.filename,
                purpose=FilePurpose.FINE_TUNE_RESULTS if results else FilePurpose.FINE_TUNE,
                size_bytes=taken.size_bytes,
                sha256=taken.sha256,
                blob_key=key,
                status=FileStatus.PROCESSED if results else FileStatus.UPLOADED,
                status_details=None,
                created_at=file.created_at,
                expires_at=file.expires_at,
            )
        )
        if not results:
            tx.queue.add(tenant, TaskKind.CHECK_FILE, file.id)


# ---- jobs


def _keep_job(
    database: Database,
    tenant: Tenant,
    job: Job,
    entries: Sequence[LogEntry],
    checkpoints: Sequence[Checkpoint],
) -> bool:
    """Keep a job with its story; return whether it was new."""
    with database.write() as tx:
        if tx.jobs(tenant).get(job.id) is not None:
            return False
        tx.jobs(tenant).add(job)
        tx.jobs(tenant).log_all(job.id, entries)
        for checkpoint in checkpoints:
            tx.jobs(tenant).add_checkpoint(checkpoint)
        told = f"Imported from {job.imported_from}, where it was carried out"
        if job.fine_tuned_model is not None:
            told += (
                f". Its weights stay there: {job.fine_tuned_model} answers here once it is trained"
                f" anew, by `tunery import openai --tune {job.id}`"
            )
        log(tx, tenant, job.id, told)
    return True
