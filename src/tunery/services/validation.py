"""Files are checked, then jobs: nothing with a bad line is ever trained on."""

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tunery.datasets.account import HEADER, Account
from tunery.datasets.checks import MAX_LISTED_ERRORS, check_file
from tunery.datasets.preferences import sides_of
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.errors import InvalidRequest
from tunery.domain.files import FileReport, FileStatus, LineError
from tunery.domain.hyperparameters import resolve
from tunery.domain.jobs import MIN_EXAMPLES, JobError, JobEvent, TrainingMethod
from tunery.domain.models import BaseModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tasks import Task, TaskKind
from tunery.services.jobs import fail_job, find_job, log
from tunery.services.training import account_prefix
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

Renderers = Callable[[BaseModel], ChatRenderer]
_GZIP = 31  # zlib's window bits for a gzip file
_METHODS = {kind: str(method) for method in TrainingMethod for kind in method.line_formats}


class NotYet(Exception):
    """The task cannot be done now; it is to be put back for a moment."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """What keeps a file from being trained on."""

    code: str
    message: str


def check_uploaded_file(database: Database, blobs: BlobStore, task: Task) -> FileStatus | None:
    """Read a training file line by line and record what is wrong with it.

    Returns the file's new status, or None where it was deleted meanwhile.
    """
    with database.read() as tx:
        file = tx.files(task.tenant).get(task.subject)
    if file is None:
        with database.write() as tx:
            tx.queue.finish(task)
        return None
    report = check_file(blobs.stream(file.blob_key))
    status = FileStatus.ERROR if report.error_count else FileStatus.PROCESSED
    with database.write() as tx:
        tx.queue.finish(task)
        tx.files(task.tenant).set_checked(file.id, status, report)
    return status


def give_up_check(database: Database, task: Task) -> None:
    """Mark a file whose check fails again and again: a job on it must not wait forever."""
    problem = LineError(0, "the file could not be checked; the service's log says why")
    with database.write() as tx:
        tx.queue.finish(task)
        tx.files(task.tenant).set_checked(
            task.subject, FileStatus.ERROR, FileReport(0, (problem,), 1)
        )


def prepare_job(
    database: Database, blobs: BlobStore, base: BaseModel, renderers: Renderers, task: Task
) -> None:
    """Check a job's files against its base and queue it, or fail it.

    Raises NotYet while a file's own check is still to come.
    """
    with database.read() as tx:
        job = find_job(tx, task.tenant, task.subject)
    problem, param = None, "training_file"
    accounts: dict[str, Account] = {}
    for field, file_id, needed in (
        ("training_file", job.training_file, MIN_EXAMPLES),
        ("validation_file", job.validation_file, 1),
    ):
        if problem is None and file_id is not None:
            param = field
            found = _check(
                database, blobs, renderers(base), base, task, job.method, file_id, needed
            )
            if isinstance(found, Account):
                accounts[file_id] = found
            else:
                problem = found
    with database.write() as tx:
        tx.queue.finish(task)
        job = find_job(tx, task.tenant, task.subject)
        if problem is not None:
            fail_job(tx, task.tenant, job, JobError(problem.code, problem.message, param))
            return
        examples = accounts[job.training_file].examples
        tx.jobs(task.tenant).set_resolved(job.id, resolve(job.requested, examples, job.method))
        for file_id, account in accounts.items():
            _tell(tx, task, file_id, account)
        tx.jobs(task.tenant).advance(job, JobEvent.FILES_ACCEPTED)
        log(tx, task.tenant, job.id, "Files validated, moving job to queued state")
        tx.queue.add(task.tenant, TaskKind.TRAIN_JOB, job.id)


def _check(
    database: Database,
    blobs: BlobStore,
    renderer: ChatRenderer,
    base: BaseModel,
    task: Task,
    method: TrainingMethod,
    file_id: str,
    needed: int,
) -> _Problem | Account:
    """Return what is wrong with the file for this model, or what will be learned of it."""
    with database.read() as tx:
        file = tx.files(task.tenant).get(file_id)
        report = tx.files(task.tenant).report(file_id)
    kind = "Training" if needed == MIN_EXAMPLES else "Validation"
    if file is None:
        return _Problem("invalid_training_file", f"{kind} file {file_id} was deleted.")
    if report is None:
        raise NotYet(f"file {file_id} is not checked yet")
    if report.examples and report.line_format not in method.line_formats:
        return _Problem(
            f"invalid_{kind.lower()}_file",
            f"The job failed due to an invalid {kind.lower()} file. Input file {file_id} is in the"
            f" {report.line_format} format, but the specified fine-tuning job is not using"
            f" {_METHODS[report.line_format]!r} as the training method (provided method={method}).",
        )
    if not report.error_count:
        if report.examples < needed:
            message = (
                f"{kind} file has {report.examples} example(s), but must have at least"
                f" {needed} examples"
            )
            return _Problem("invalid_n_examples", message)
        table_key = f"{account_prefix(task.tenant, task.subject)}/{file_id}.csv.gz"
        report, account = _render_report(blobs, renderer, base, file.blob_key, table_key)
        if not report.error_count and account.learned:
            return account
    if report.error_count:
        message = (
            f"The job failed due to an invalid {kind.lower()} file. Invalid file format."
            f" {report.error_count} of {report.examples} lines cannot be used: {report.summary()}."
        )
    else:
        message = (
            f"The job failed due to an invalid {kind.lower()} file. Nothing of it would be learned:"
            f" examples are cut at {base.context_tokens} tokens, and all that is to be learned"
            " stands behind. Shorten the examples."
        )
    return _Problem(f"invalid_{kind.lower()}_file", message)


def _render_report(
    blobs: BlobStore, renderer: ChatRenderer, base: BaseModel, blob_key: str, table_key: str
) -> tuple[FileReport, Account]:
    """Render every line with the model's own template: what it refuses is a bad line too.

    What is learned of each line is kept under `table_key`, where all of them are good.
    """
    examples = error_count = 0
    errors: list[LineError] = []
    account = Account(base.context_tokens)
    packed = zlib.compressobj(wbits=_GZIP)
    with blobs.writer(table_key) as table:
        table.write(packed.compress(HEADER))
        for line in lines(blobs.stream(blob_key)):
            examples += 1
            try:
                sides = [renderer.line(side) for side in sides_of(parse(line))]
                table.write(packed.compress(account.add(line.number, *sides)))
            except InvalidRequest as error:
                error_count += 1
                if len(errors) < MAX_LISTED_ERRORS:
                    errors.append(LineError(line.number, error.message))
        if not error_count:
            table.write(packed.flush())
            table.commit()
    return FileReport(examples, tuple(errors), error_count), account


def _tell(tx: Transaction, task: Task, file_id: str, account: Account) -> None:
    """Say in the job's story what will be learned of a file."""
    log(
        tx,
        task.tenant,
        task.subject,
        f"Tokens of file {file_id}: {account.summary()}",
        level="warn" if account.cut else "info",
        data={"file": file_id, **asdict(account)},
    )
