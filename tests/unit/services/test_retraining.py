"""Imported jobs are trained anew: what it takes, that it is begun once, and who answers then."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from support.rows import OURS, THEIRS, a_checkpoint, a_file, a_job, a_model, chat_line, chat_lines
from support.rows import render_with as rendered
from tunery.domain.errors import InvalidRequest, NotFound
from tunery.domain.jobs import (
    Adapter,
    EpochCheckpoint,
    Hyperparameters,
    Job,
    JobError,
    JobEvent,
    JobStatus,
    RequestedHyperparameters,
    StepMetrics,
)
from tunery.domain.ports.training import ProofRequest
from tunery.domain.tasks import TaskKind
from tunery.services import imported_models, jobs, known_models, models, publishing
from tunery.services.models import ModelDirectory
from tunery.services.retraining import (
    EVERY,
    Choice,
    Retraining,
    Standing,
    plan_retraining,
    start_retraining,
    waiting_models,
)
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database

OLD_BASE = "gpt-4o-mini-2024-07-18"
MODEL = f"ft:{OLD_BASE}:acme:support:AbC123"
TOLERANCE = publishing.Tolerance(mean=0.1, maximum=1.0, sequences=2)

AUTO = Choice({})

Plan = Callable[..., list[Retraining]]


def add(database: Database, blobs: LocalBlobStore, data: bytes, **changes: Any) -> Job:
    """Keep an imported job and its training file."""
    job = a_job(
        **{
            "job_id": "ftjob-old",
            "model": OLD_BASE,
            "base_digest": "",
            "status": JobStatus.SUCCEEDED,
            "suffix": "support",
            "seed": 11,
            "metadata": {"team": "blue"},
            "requested": RequestedHyperparameters(3, 1, 1.8),
            "fine_tuned_model": MODEL,
            "imported_from": "https://there.test/v1",
            **changes,
        }
    )
    key = f"p/files/{job.training_file}"
    blobs.put(key, data)
    with database.write() as tx:
        tx.jobs(OURS).add(job)
        if tx.files(OURS).get(job.training_file) is None:
            tx.files(OURS).add(a_file(job.training_file, blob_key=key))
    return job


@pytest.fixture
def plan(database: Database, blobs: LocalBlobStore, directory: ModelDirectory) -> Plan:
    def planned(*job_ids: str, choice: Choice = AUTO, tenant: Any = OURS) -> list[Retraining]:
        ids = job_ids or None
        return plan_retraining(database, blobs, directory, rendered, tenant, ids, choice)

    return planned


def advance(database: Database, job: Job, *events: JobEvent, **changes: Any) -> None:
    for event in events:
        with database.write() as tx:
            tx.jobs(OURS).advance(jobs.find_job(tx, OURS, job.id), event, **changes)


def test_what_it_takes_is_the_tokens_of_every_epoch_at_the_bases_price(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    kept = Choice({OLD_BASE: "gpt-tiny"}, keep_hyperparameters=True)
    (one,) = plan(choice=kept)
    renderer = rendered(directory.base())
    line = {
        "messages": [
            {"role": "user", "content": "Hi!"},
            {"role": "assistant", "content": "Answer 0."},
        ]
    }
    tokens = 10 * len(renderer.line(line).token_ids) + 2 * (len(renderer.line(line).token_ids) + 1)
    assert (one.standing, one.model) == (Standing.READY, "tiny")
    assert one.numbers == Hyperparameters(3, 1, 1.8)
    assert one.tokens == 3 * tokens  # "Answer 10." has a letter more, and a byte is a token
    assert one.cost_nanodollars == 3 * tokens * 8000  # 8 dollars a million
    assert one.seconds is None  # nothing has been trained here yet


def test_time_is_that_of_the_latest_job_on_the_same_base(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    digest = directory.base().digest
    ended = {"base_digest": digest, "status": JobStatus.SUCCEEDED}
    with database.write() as tx:
        for job in (
            a_job("ftjob-1", **ended, trained_tokens=10, started_at=0, finished_at=1000),
            a_job("ftjob-2", **ended, trained_tokens=1000, started_at=100, finished_at=300),
            a_job("ftjob-3", status=JobStatus.FAILED, base_digest=digest, trained_tokens=9),
        ):
            tx.jobs(OURS).add(job)
    (one,) = plan()
    assert one.seconds == one.tokens * 200 / 1000


@pytest.mark.parametrize(
    ("bases", "model"),
    [
        ({}, "tiny"),  # nothing answers to the old base's name here: the default
        ({OLD_BASE: "gpt-tiny"}, "tiny"),
        ({EVERY: "tiny", OLD_BASE: "gpt-tiny"}, "tiny"),
        ({EVERY: "nowhere", OLD_BASE: "tiny"}, "tiny"),
        ({EVERY: "nowhere"}, None),
        ({OLD_BASE: "ft:x"}, None),
    ],
)
def test_the_base_is_the_owners_choice(
    database: Database,
    blobs: LocalBlobStore,
    plan: Plan,
    bases: dict[str, str],
    model: str | None,
) -> None:
    add(database, blobs, chat_lines(12))
    (one,) = plan(choice=Choice(bases))
    assert (one.base and one.base.name) == model
    if model is None:
        assert one.standing is Standing.IMPOSSIBLE
        assert "there is no base model" in one.why


IMAGE = chat_line().replace(
    b'"Hi!"', b'[{"type":"image_url","image_url":{"url":"https://x.test/a.png"}}]'
)


@pytest.mark.parametrize(
    ("data", "changes", "why"),
    [
        (IMAGE * 12, {}, r"it has images \(first in line 1\), and no base here can see"),
        (chat_lines(9), {}, "it has 9 example.s.; needed are 10"),
        (b"[]\n" * 12, {}, "12 of 12 lines cannot be used"),
        (chat_lines(12), {"method": "dpo"}, "fine-tune-chat format, which is not for dpo"),
        (chat_lines(12), {"fine_tuned_model": None}, "made no model"),
    ],
)
def test_what_cannot_be_trained_anew_says_why(
    database: Database,
    blobs: LocalBlobStore,
    plan: Plan,
    data: bytes,
    changes: dict[str, Any],
    why: str,
) -> None:
    add(database, blobs, data, **changes)
    (one,) = plan("ftjob-old")
    assert one.standing is Standing.IMPOSSIBLE
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(one.why)


def test_a_file_that_is_not_here_is_asked_for(
    database: Database, blobs: LocalBlobStore, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12), validation_file="file-gone")
    (one,) = plan()
    assert (one.validation_file, one.why) == (None, "its validation file is not here")
    with database.write() as tx:
        tx.files(OURS).delete("file-1")
    (one,) = plan()
    assert one.standing is Standing.IMPOSSIBLE
    assert "--file file-1=PATH" in one.why


def test_only_imported_jobs_of_ones_own_are_trained_anew(
    database: Database, blobs: LocalBlobStore, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    with database.write() as tx:
        tx.jobs(OURS).add(a_job("ftjob-here"))
    assert [one.job.id for one in plan()] == ["ftjob-old"]
    assert plan(tenant=THEIRS) == []
    with pytest.raises(NotFound, match="There is no imported job ftjob-here; there are ftjob-old"):
        plan("ftjob-here")


def test_it_is_begun_once_with_what_the_old_job_had(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    old = add(database, blobs, chat_lines(12))
    (one,) = plan()
    assert waiting_models(database, OURS) == 1
    job, new = start_retraining(database, directory, OURS, one, Choice({}))
    assert new
    assert waiting_models(database, OURS) == 0
    assert (job.replaces, job.model, job.base) == (MODEL, "tiny", "tiny")
    assert (job.suffix, job.seed, job.metadata) == ("support", 11, {"team": "blue"})
    assert job.requested == RequestedHyperparameters()  # chosen for this base
    assert jobs.get_job(database, OURS, job.id) == job
    assert start_retraining(database, directory, OURS, one, Choice({})) == (job, False)
    (again,) = plan()
    assert (again.standing, again.why) == (Standing.TAKEN, f"{job.id} is validating_files")
    (events, told) = (
        jobs.list_events(database, OURS, job_id, after=None, limit=1).items[0].message
        for job_id in (job.id, old.id)
    )
    assert events == (
        f"It trains the imported job ftjob-old anew, on tiny in place of {OLD_BASE}; {MODEL} will"
        " be answered by its model"
    )
    assert told == f"Trained anew on tiny by {job.id}"
    with database.write() as tx:
        assert tx.queue.claim([TaskKind.PREPARE_JOB], 60) is not None
        assert tx.queue.claim([TaskKind.PREPARE_JOB], 60) is None


def test_a_successor_that_has_failed_is_followed_by_another(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    (one,) = plan()
    first, _ = start_retraining(database, directory, OURS, one, Choice({}))
    with database.write() as tx:
        jobs.fail_job(tx, OURS, first, JobError("x", "It broke.", None))
    (one,) = plan()
    assert one.standing is Standing.READY
    second, new = start_retraining(database, directory, OURS, one, Choice({}))
    assert new
    assert second.id != first.id


def test_what_has_ended_is_trained_once_more_only_where_that_is_said(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    (one,) = plan()
    first, _ = start_retraining(database, directory, OURS, one, Choice({}))
    again = Choice({}, again=True)
    (still,) = plan(choice=again)
    assert still.standing is Standing.TAKEN  # it is under way
    advance(database, first, JobEvent.FILES_ACCEPTED, JobEvent.STARTED)
    advance(database, first, JobEvent.PUBLISHED, finished_at=5)
    assert [one.standing for one in plan()] == [Standing.TAKEN]
    (one,) = plan(choice=again)
    second, new = start_retraining(database, directory, OURS, one, again)
    assert (new, second.id != first.id) == (True, True)


def test_a_job_that_went_on_from_a_tuned_model_goes_on_from_it_here(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    child = add(
        database,
        blobs,
        chat_lines(12),
        job_id="ftjob-child",
        model=MODEL,
        fine_tuned_model=f"{MODEL[:-6]}Child1",
    )
    (one,) = plan(child.id)
    assert one.standing is Standing.IMPOSSIBLE
    assert one.why == (
        f"it goes on from {MODEL}, which does not answer here: train ftjob-old anew first"
    )
    with database.write() as tx:
        tx.models(OURS).add(a_model(MODEL, base_digest=directory.base().digest))
    (one,) = plan(child.id, choice=Choice({EVERY: "tiny"}))
    job, _ = start_retraining(database, directory, OURS, one, Choice({}))
    assert (job.model, job.parent_model, job.base) == (MODEL, MODEL, "tiny")


# ---- the old name


def test_the_name_of_a_model_without_weights_says_what_to_do(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    early = f"{MODEL[:-6]}Early1:ckpt-step-3"
    with database.write() as tx:
        checkpoint = dataclasses.replace(a_checkpoint(3, "ftjob-old"), model_name=early)
        tx.jobs(OURS).add_checkpoint(checkpoint)
    known = known_models.KnownModels(database, directory)

    def told(name: str = MODEL, tenant: Any = OURS) -> str:
        with pytest.raises(NotFound) as unready:
            models.get_model(database, directory, tenant, name)
        error = known.refusal(tenant, name, "a chat", "v1/chat/completions")
        assert (error.message, error.code) == (unready.value.message, "model_not_found")
        return error.message

    assert "trained anew: `tunery import openai --tune ftjob-old`" in told()
    assert "an earlier checkpoint of the imported job ftjob-old" in told(early)
    assert f"ask for `{MODEL}`" in told(early)
    assert "does not exist" in told(tenant=THEIRS)
    assert "does not exist" in told(f"{MODEL}x")
    request = jobs.JobRequest(MODEL, "file-1", None, None, None, RequestedHyperparameters(), None)
    with pytest.raises(InvalidRequest, match="imported without its weights") as refused:
        jobs.create_job(database, directory, OURS, request)
    assert refused.value.code == "model_not_available"

    (one,) = plan()
    job, _ = start_retraining(database, directory, OURS, one, Choice({}))
    assert f"once {job.id} has succeeded, which trains it anew and is validating_files" in told()
    with database.write() as tx:
        jobs.fail_job(tx, OURS, job, JobError("x", "It broke.", None))
    assert f"{job.id}, which was to train it anew, has failed; start it again" in told()


def trained(database: Database, job: Job, digest: str) -> Adapter:
    """Bring a job to the point where it is published; return its adapter."""
    adapter = Adapter(f"{OURS.project_id}/jobs/{job.id}/attempt-1/step-9", digest * 64)
    advance(database, job, JobEvent.FILES_ACCEPTED, JobEvent.STARTED)
    with database.write() as tx:
        metrics = StepMetrics(9, 9, 0.5, 0.5)
        tx.jobs(OURS).add_epoch_checkpoint(job.id, EpochCheckpoint(9, 1, adapter, metrics))
        tx.queue.drop(OURS, job.id)
        tx.queue.add(OURS, TaskKind.PUBLISH_JOB, job.id)
    return adapter


def publish(database: Database, blobs: LocalBlobStore, directory: ModelDirectory) -> None:
    def score(texts: Any, digest: str, adapter: Adapter) -> publishing.Scores:
        return [[0.0] * (len(text) - 1) for text in texts]

    def reference(request: ProofRequest) -> Any:
        return [score(request.token_ids, "", adapter) for adapter in request.adapters]

    base = directory.base()
    with database.write() as tx:
        task = tx.queue.claim([TaskKind.PUBLISH_JOB], 60)
    assert task is not None
    publishing.publish_job(database, blobs, base, rendered(base), score, reference, TOLERANCE, task)


def test_the_old_name_has_the_new_model_and_then_a_newer_one(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    again = Choice({}, again=True)
    adapters, names = [], []
    for digest in "ab":
        (one,) = plan(choice=again)
        job, _ = start_retraining(database, directory, OURS, one, again)
        adapters.append(trained(database, job, digest))
        blobs.put(f"{adapters[-1].key}/adapter_model.safetensors", b"weights")
        publish(database, blobs, directory)
        name = jobs.get_job(database, OURS, job.id).fine_tuned_model or ""
        assert name.startswith("ft:tiny:acme:support:")
        names.append(name)
        for asked in (MODEL, name):
            found = models.get_model(database, directory, OURS, asked)
            assert found.tuned is not None
            assert (found.tuned.adapter, found.tuned.job_id) == (adapters[-1], job.id)
    # The first model is still there under its own name.
    first = models.get_model(database, directory, OURS, names[0])
    assert first.tuned is not None
    assert first.tuned.adapter == adapters[0]
    assert len(list(blobs.keys(adapters[0].key))) == 1
    with database.read() as tx:
        assert imported_models.awaited(tx, OURS, MODEL) is None
    with pytest.raises(NotFound, match="does not exist"):
        models.get_model(database, directory, THEIRS, MODEL)


def test_weights_that_only_the_old_name_had_go_when_it_moves_on(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, plan: Plan
) -> None:
    add(database, blobs, chat_lines(12))
    again = Choice({}, again=True)
    adapters = []
    for digest in "ab":
        (one,) = plan(choice=again)
        job, _ = start_retraining(database, directory, OURS, one, again)
        adapters.append(trained(database, job, digest))
        blobs.put(f"{adapters[-1].key}/adapter_model.safetensors", b"weights")
        publish(database, blobs, directory)
        name = jobs.get_job(database, OURS, job.id).fine_tuned_model or ""
        models.delete_model(database, blobs, directory, OURS, name)
    assert [len(list(blobs.keys(adapter.key))) for adapter in adapters] == [0, 1]
