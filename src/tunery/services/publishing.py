"""A trained adapter becomes a model: proven to be served as it was trained, then registered.

The proof holds the served model's log-probabilities on held-out text against transformers + PEFT
in fp32, loading the same files. Tolerance and measurement: docs/reference/publishing-proof.md.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunery.datasets.preferences import sides_of
from tunery.datasets.reader import lines, parse
from tunery.datasets.rendering import ChatRenderer
from tunery.domain.files import FilePurpose, FileStatus, StoredFile
from tunery.domain.ids import new_id
from tunery.domain.jobs import Adapter, Checkpoint, EpochCheckpoint, Job, JobError, JobEvent
from tunery.domain.models import BaseModel, TunedModel, checkpoint_name, tuned_name
from tunery.domain.ports.blobs import BlobStore
from tunery.domain.ports.training import ProofRequest
from tunery.domain.tasks import Task
from tunery.domain.usage import UsageKind, UsageRecord, nanodollars
from tunery.domain.webhooks import EventType
from tunery.services.jobs import fail_job, find_job, log
from tunery.services.training import results_csv
from tunery.services.webhooks import emit
from tunery.storage.database import Database
from tunery.storage.transaction import Transaction

KEPT_CHECKPOINTS = 3
_MAX_PROOF_TOKENS = 512  # of one text
_FALLBACK_QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "List three colours.",
    "How do I reset my password?",
    "Translate 'good morning' into German.",
    "Summarize: the meeting was moved from Monday to Thursday because of the holiday.",
    "My order 48213 has not arrived yet. What should I do?",
    "Explain in simple words why the sky is blue.",
)

Scores = list[list[float]]
Score = Callable[[Sequence[Sequence[int]], str, Adapter], Scores]
Reference = Callable[[ProofRequest], Sequence[Sequence[Sequence[float]]]]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far served log-probabilities may be from the reference's, in nats."""

    mean: float
    maximum: float
    sequences: int


@dataclass(frozen=True, slots=True)
class Proof:
    """The differences found, over `tokens` tokens."""

    mean: float
    maximum: float
    tokens: int

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether the served model is the trained one; a NaN is not."""
        return self.mean <= tolerance.mean and self.maximum <= tolerance.maximum


def publish_job(
    database: Database,
    blobs: BlobStore,
    base: BaseModel,
    renderer: ChatRenderer,
    score: Score,
    reference: Reference,
    tolerance: Tolerance,
    task: Task,
) -> None:
    """Prove and register the models of a job whose training has ended."""
    proven = _prove(database, blobs, renderer, score, reference, tolerance, task)
    worst = max((proof for _, proof in proven), key=lambda proof: (proof.mean, proof.maximum))
    failed = next((proof for _, proof in proven if not proof.within(tolerance)), None)
    if failed is not None:
        _refuse(database, task, failed, tolerance)
        return
    _register(database, blobs, base, task, [checkpoint for checkpoint, _ in proven], worst)


def publish_kept(
    database: Database,
    blobs: BlobStore,
    renderer: ChatRenderer,
    score: Score,
    reference: Reference,
    tolerance: Tolerance,
    task: Task,
) -> None:
    """Prove and register what a job made before it failed or was cancelled: each for itself."""
    proven = _prove(database, blobs, renderer, score, reference, tolerance, task)
    good = [checkpoint for checkpoint, proof in proven if proof.within(tolerance)]
    now = int(time.time())
    with database.write() as tx:
        tx.queue.finish(task)
        job = find_job(tx, task.tenant, task.subject)
        for checkpoint in good:
            slug = task.tenant.organization_slug
            name = checkpoint_name(job.model, slug, job.suffix, checkpoint.step)
            _add_model(tx, task, job, name, checkpoint, now)
        tx.jobs(task.tenant).keep_epoch_checkpoints(job.id, [c.step for c in good])


def _prove(
    database: Database,
    blobs: BlobStore,
    renderer: ChatRenderer,
    score: Score,
    reference: Reference,
    tolerance: Tolerance,
    task: Task,
) -> list[tuple[EpochCheckpoint, Proof]]:
    """Return a job's last checkpoints, each with how far from the reference it is served."""
    tenant = task.tenant
    with database.read() as tx:
        job = find_job(tx, tenant, task.subject)
        checkpoints = list(tx.jobs(tenant).epoch_checkpoints(job.id))[-KEPT_CHECKPOINTS:]
        held_out = (
            None if job.validation_file is None else tx.files(tenant).get(job.validation_file)
        )
    held_out_key = None if held_out is None else held_out.blob_key
    texts = proof_texts(blobs, renderer, held_out_key, tolerance.sequences)
    adapters = tuple(checkpoint.adapter for checkpoint in checkpoints)
    expected = reference(ProofRequest(job.base, job.base_digest, adapters, texts))
    served = [score(texts, job.base_digest, adapter) for adapter in adapters]
    proofs = [compare(one, other, texts) for one, other in zip(served, expected, strict=True)]
    return list(zip(checkpoints, proofs, strict=True))


def proof_texts(
    blobs: BlobStore, renderer: ChatRenderer, held_out_key: str | None, count: int
) -> tuple[tuple[int, ...], ...]:
    """Return token sequences to score: the validation file's first lines, or neutral questions.

    Of a preference pair it is the conversation with the answer that is preferred.
    """
    texts: list[tuple[int, ...]] = []
    if held_out_key is not None:
        for line in lines(blobs.stream(held_out_key)):
            ids = renderer.line(sides_of(parse(line))[0]).token_ids
            texts.append(tuple(ids[:_MAX_PROOF_TOKENS]))
            if len(texts) == count:
                break
    else:
        for question in _FALLBACK_QUESTIONS[:count]:
            texts.append(tuple(renderer.prompt([{"role": "user", "content": question}])))
    return tuple(texts)


def compare(
    served: Sequence[Sequence[float]],
    expected: Sequence[Sequence[float]],
    texts: Sequence[Sequence[int]] = (),
) -> Proof:
    """Return mean and maximum of |served - expected| over all tokens of all sequences.

    With the sequences' `texts`, what several begin with is counted once: a template's own words
    before every conversation would outweigh all that is said in it.
    """
    differences = [
        [abs(a - b) for a, b in zip(left, right, strict=True)]
        for left, right in zip(served, expected, strict=True)
    ]
    if texts:
        repeated = repeated_tokens(texts)
        counted = [d for row, skip in zip(differences, repeated, strict=True) for d in row[skip:]]
    else:
        counted = [d for row in differences for d in row]
    if not counted or not all(math.isfinite(d) for row in differences for d in row):
        return Proof(float("nan"), float("nan"), len(counted))
    return Proof(sum(counted) / len(counted), max(counted), len(counted))


def repeated_tokens(texts: Sequence[Sequence[int]]) -> list[int]:
    """Return how many scored tokens of each text an earlier one begins with too.

    A text's first token is not scored: nothing comes before it.
    """
    seen: set[tuple[int, ...]] = set()
    found = []
    for text in texts:
        beginnings = [tuple(text[:end]) for end in range(2, len(text) + 1)]
        found.append(sum(beginning in seen for beginning in beginnings))
        seen.update(beginnings)
    return found


def _refuse(database: Database, task: Task, proof: Proof, tolerance: Tolerance) -> None:
    message = (
        "The model was trained, but is not served as it was trained: log-probabilities differ from"
        f" the fp32 reference by {proof.mean:.4f} on average and {proof.maximum:.4f} at most;"
        f" allowed are {tolerance.mean} and {tolerance.maximum}. It was not published. Try a lower"
        " learning_rate_multiplier, or have the operator look at TUNERY_TRAINING__PROOF_MEAN."
    )
    with database.write() as tx:
        tx.queue.hold(task)
        job = find_job(tx, task.tenant, task.subject)
        fail_job(tx, task.tenant, job, JobError("publishing_check_failed", message, None))


def _register(
    database: Database,
    blobs: BlobStore,
    base: BaseModel,
    task: Task,
    checkpoints: Sequence[EpochCheckpoint],
    proof: Proof,
) -> None:
    """Name the models, write the result file, and end the job: one transaction."""
    tenant = task.tenant
    with database.read() as tx:
        results = results_csv(list(tx.jobs(tenant).metrics(task.subject)))
    results_id = new_id("file-")
    results_key = f"{tenant.project_id}/files/{results_id}"
    blobs.put(results_key, results)
    now = int(time.time())
    outdated: Adapter | None = None
    with database.write() as tx:
        tx.queue.finish(task)
        job = find_job(tx, tenant, task.subject)
        names = [
            checkpoint_name(job.model, tenant.organization_slug, job.suffix, checkpoint.step)
            for checkpoint in checkpoints[:-1]
        ]
        names.append(tuned_name(job.model, tenant.organization_slug, job.suffix))
        for name, checkpoint in zip(names, checkpoints, strict=True):
            _add_model(tx, task, job, name, checkpoint, now)
        tx.jobs(tenant).keep_epoch_checkpoints(job.id, [c.step for c in checkpoints])
        log(
            tx,
            tenant,
            job.id,
            "Publishing check passed: served log-probabilities differ from the fp32 reference"
            f" by {proof.mean:.4f} on average, {proof.maximum:.4f} at most, over"
            f" {proof.tokens} tokens",
        )
        log(tx, tenant, job.id, f"New fine-tuned model created: {names[-1]}")
        if job.replaces is not None:
            outdated = _take_over(tx, task, job, job.replaces, checkpoints[-1].adapter, now)
        log(tx, tenant, job.id, "The job has successfully completed")
        tx.files(tenant).add(
            StoredFile(
                id=results_id,
                filename="step_metrics.csv",
                purpose=FilePurpose.FINE_TUNE_RESULTS,
                size_bytes=len(results),
                sha256=hashlib.sha256(results).hexdigest(),
                blob_key=results_key,
                status=FileStatus.PROCESSED,
                status_details=None,
                created_at=now,
            )
        )
        tokens = job.trained_tokens or 0
        tx.usage(tenant).add(
            UsageRecord(
                request_id=job.id,
                kind=UsageKind.TRAINING,
                model=names[-1],
                base=job.base,
                key_id=None,
                end_user=None,
                input_tokens=tokens,
                output_tokens=0,
                cost_nanodollars=nanodollars(tokens, base.prices.training),
            ),
            now,
        )
        tx.jobs(tenant).advance(
            job,
            JobEvent.PUBLISHED,
            fine_tuned_model=names[-1],
            result_files=[results_id],
            finished_at=now,
        )
        emit(tx, tenant, EventType.JOB_SUCCEEDED, job.id, now)
    if outdated is not None:
        blobs.delete_prefix(outdated.key)


def _take_over(
    tx: Transaction, task: Task, job: Job, name: str, adapter: Adapter, now: int
) -> Adapter | None:
    """Have the new model answer to an imported one's name; return an adapter that no name has now.

    Where the name was taken over before, the newer model has it from here on.
    """
    models = tx.models(task.tenant)
    model = TunedModel(name, job.id, job.base, job.base_digest, adapter, now)
    before = models.replace(model)
    log(tx, task.tenant, job.id, f"Its model answers to {name} from now on")
    if before is None or models.adapter_in_use(before.adapter):
        return None
    return before.adapter


def _add_model(
    tx: Transaction, task: Task, job: Job, name: str, checkpoint: EpochCheckpoint, now: int
) -> None:
    tx.models(task.tenant).add(
        TunedModel(
            name=name,
            job_id=job.id,
            base=job.base,
            base_digest=job.base_digest,
            adapter=checkpoint.adapter,
            created_at=now,
        )
    )
    tx.jobs(task.tenant).add_checkpoint(
        Checkpoint(
            id=new_id("ftckpt_"),
            job_id=job.id,
            step=checkpoint.step,
            model_name=name,
            metrics=checkpoint.metrics.told(),
            created_at=now,
        )
    )
    if ":ckpt-step-" in name:
        log(
            tx,
            task.tenant,
            job.id,
            f"Checkpoint created at step {checkpoint.step} with Snapshot ID: {name}",
        )
