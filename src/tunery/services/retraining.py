"""Imported jobs are trained anew on a base of ours, and the old names come to stand for the result.

A job of its own does that: the imported one keeps its history. It has the old one's files, suffix,
seed and metadata; it is created once, however often that is asked for.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tunery.datasets.account import Account
from tunery.datasets.checks import check_file
from tunery.datasets.preferences import sides_of
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.errors import InvalidRequest, NotFound
from tunery.domain.hyperparameters import resolve
from tunery.domain.ids import new_id
from tunery.domain.jobs import MIN_EXAMPLES, Hyperparameters, Job, RequestedHyperparameters
from tunery.domain.models import BaseModel
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.tenants import Tenant
from tunery.domain.usage import nanodollars
from tunery.services.imported_models import latest_successor, taken_over
from tunery.services.jobs import JobRequest, accept_job, log
from tunery.services.models import ModelDirectory
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

EVERY = "*"  # in the choice of bases: those that are not named
_IMAGES = ("image_url", "input_image")

Renderers = Callable[[BaseModel], ChatRenderer]


class Standing(StrEnum):
    """What is to become of an imported job."""

    READY = "ready"  # it can be trained anew
    TAKEN = "taken"  # a job trains it anew, or has done so
    IMPOSSIBLE = "impossible"  # `why` says why not


@dataclass(frozen=True, slots=True)
class Choice:
    """What the owner wants: bases by the name that a job has for its own, `EVERY` for the rest."""

    bases: Mapping[str, str]
    keep_hyperparameters: bool = False  # else each is "auto": chosen for the local base
    again: bool = False  # also what was trained anew before


@dataclass(frozen=True, slots=True)
class Retraining:
    """An imported job, and what it takes to train it anew."""

    job: Job
    standing: Standing
    why: str = ""
    model: str = ""  # what the new job is to start from, by name
    base: BaseModel | None = None
    requested: RequestedHyperparameters = field(default_factory=RequestedHyperparameters)
    numbers: Hyperparameters | None = None
    account: Account | None = None
    validation_file: str | None = None
    seconds: float | None = None  # as long as earlier jobs on this base let expect

    @property
    def tokens(self) -> int:
        """Return the tokens that are trained on, and charged: those of every epoch."""
        if self.account is None or self.numbers is None:
            return 0
        return self.account.tokens * self.numbers.n_epochs

    @property
    def cost_nanodollars(self) -> int:
        """Return the price of those tokens here."""
        return 0 if self.base is None else nanodollars(self.tokens, self.base.prices.training)


def plan_retraining(
    database: Database,
    blobs: BlobStore,
    directory: ModelDirectory,
    renderers: Renderers,
    tenant: Tenant,
    job_ids: Sequence[str] | None,
    choice: Choice,
) -> list[Retraining]:
    """Return what training anew takes: of these jobs, or of all that have made a model."""
    with database.read() as tx:
        imported = tx.jobs(tenant).imported()
    known = {job.id: job for job in imported}
    for job_id in job_ids or ():
        if job_id not in known:
            raise NotFound(
                f"There is no imported job {job_id[:80]}; there are"
                f" {', '.join(known) or 'none yet'}."
            )
    wanted = (
        [job for job in imported if job.fine_tuned_model is not None]
        if job_ids is None
        else [known[job_id] for job_id in dict.fromkeys(job_ids)]
    )
    return [_planned(database, blobs, directory, renderers, tenant, job, choice) for job in wanted]


def waiting_models(database: Database, tenant: Tenant) -> int:
    """Return how many imported models no job has begun to train anew."""
    with database.read() as tx:
        names = [job.fine_tuned_model for job in tx.jobs(tenant).imported()]
        return sum(
            not taken_over(latest_successor(tx, tenant, name)) for name in names if name is not None
        )


def start_retraining(
    database: Database, directory: ModelDirectory, tenant: Tenant, one: Retraining, choice: Choice
) -> tuple[Job, bool]:
    """Create the job that trains an imported one anew; return it, and whether it is new."""
    old = one.job
    if one.base is None or old.fine_tuned_model is None:
        raise InvalidRequest(f"{old.id} cannot be trained anew: {one.why}.")
    with database.write() as tx:
        tx.jobs(tenant).lock(old.id)
        successor = latest_successor(tx, tenant, old.fine_tuned_model)
        if successor is not None and _stands(successor, choice):
            return successor, False
        job = accept_job(
            tx,
            directory,
            tenant,
            JobRequest(
                model=one.model,
                training_file=old.training_file,
                validation_file=one.validation_file,
                suffix=old.suffix,
                seed=old.seed,
                hyperparameters=one.requested,
                metadata=old.metadata,
                method=old.method,
                replaces=old.fine_tuned_model,
            ),
            new_id("ftjob-"),
            int(time.time()),
        )
        log(
            tx,
            tenant,
            job.id,
            f"It trains the imported job {old.id} anew, on {one.base.name} in place of {old.model};"
            f" {old.fine_tuned_model} will be answered by its model",
        )
        log(tx, tenant, old.id, f"Trained anew on {one.base.name} by {job.id}")
    return job, True


def _stands(successor: Job, choice: Choice) -> bool:
    """Return whether a successor is not to be followed by one more."""
    if choice.again and successor.finished_at is not None:
        return False
    return taken_over(successor)


def _planned(
    database: Database,
    blobs: BlobStore,
    directory: ModelDirectory,
    renderers: Renderers,
    tenant: Tenant,
    job: Job,
    choice: Choice,
) -> Retraining:
    if job.fine_tuned_model is None:
        return Retraining(job, Standing.IMPOSSIBLE, f"it has {job.status} and made no model")
    with database.read() as tx:
        successor = latest_successor(tx, tenant, job.fine_tuned_model)
        if successor is not None and _stands(successor, choice):
            return Retraining(job, Standing.TAKEN, f"{successor.id} is {successor.status}")
        try:
            model, base = _start(tx, directory, tenant, job, choice)
        except InvalidRequest as error:
            return Retraining(job, Standing.IMPOSSIBLE, error.message)
        training = tx.files(tenant).visible(job.training_file)
        validation_file = job.validation_file
        if validation_file is not None and tx.files(tenant).visible(validation_file) is None:
            validation_file = None
        earlier = tx.jobs(tenant).ended_on(base.digest)
    if training is None:
        why = f"its training file {job.training_file} is not here; have you it?"
        return Retraining(job, Standing.IMPOSSIBLE, f"{why} Then --file {job.training_file}=PATH")
    requested = RequestedHyperparameters(beta=job.requested.beta)
    if choice.keep_hyperparameters:
        requested = job.requested
    found = _account(blobs, renderers(base), base, job, training.blob_key)
    if isinstance(found, str):
        return Retraining(job, Standing.IMPOSSIBLE, f"{job.training_file}: {found}")
    one = Retraining(
        job,
        Standing.READY,
        "" if validation_file == job.validation_file else "its validation file is not here",
        model=model,
        base=base,
        requested=requested,
        numbers=resolve(requested, found.examples, job.method),
        account=found,
        validation_file=validation_file,
    )
    return replace(one, seconds=_seconds(one.tokens, earlier))


def _start(
    tx: Transaction, directory: ModelDirectory, tenant: Tenant, job: Job, choice: Choice
) -> tuple[str, BaseModel]:
    """Return the model to train from; raise InvalidRequest where it is not here.

    A job that went on from a tuned model goes on from that one here too, once it answers.
    """
    if job.model.startswith("ft:"):
        parent = directory.find(tx, tenant, job.model)
        if parent is None:
            made_by = tx.jobs(tenant).imported_as(job.model)
            first = f": train {made_by.id} anew first" if made_by is not None else ""
            raise InvalidRequest(f"it goes on from {job.model}, which does not answer here{first}")
        return job.model, parent.base
    name = choice.bases.get(job.model) or choice.bases.get(EVERY)
    if name is None:  # what answers to its old base's name here, else the default
        found = directory.find(tx, tenant, job.model)
        name = job.model if found is not None else directory.default
    found = directory.find(tx, tenant, name)
    if found is None or found.tuned is not None:
        raise InvalidRequest(f"there is no base model {name!r} here; see `tunery models list`")
    return found.base.name, found.base


def _account(
    blobs: BlobStore, renderer: ChatRenderer, base: BaseModel, job: Job, blob_key: str
) -> Account | str:
    """Return what will be learned of a training file, or what keeps it from being trained on."""
    report = check_file(blobs.stream(blob_key))
    images = [e.line for e in report.errors if any(image in e.message for image in _IMAGES)]
    if images:
        return f"it has images (first in line {images[0]}), and no base here can see"
    if report.error_count:
        return f"{report.error_count} of {report.examples} lines cannot be used:" + (
            f" {report.summary()[:300]}"
        )
    if report.examples < MIN_EXAMPLES:
        return f"it has {report.examples} example(s); needed are {MIN_EXAMPLES}"
    if report.line_format not in job.method.line_formats:
        return f"it is in the {report.line_format} format, which is not for {job.method}"
    account = Account(base.context_tokens)
    try:
        for line in lines(blobs.stream(blob_key)):
            account.add(line.number, *(renderer.line(side) for side in sides_of(parse(line))))
    except InvalidRequest as error:
        return f"{base.name} cannot be asked this: {error.message[:300]}"
    return account if account.learned else "nothing of it is left to learn within the context"


def _seconds(tokens: int, earlier: Sequence[Job]) -> float | None:
    """Return how long `tokens` take at the rate of the latest job, from its start to its end."""
    for job in reversed(earlier):
        if job.trained_tokens and job.started_at is not None and job.finished_at is not None:
            took = max(1, job.finished_at - job.started_at)
            return tokens * took / job.trained_tokens
    return None
