"""Rows and records: each tenant's own, in order, and moved on only as they were read."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from support.rows import (
    OURS,
    THEIRS,
    a_batch,
    a_checkpoint,
    a_file,
    a_job,
    a_model,
    an_entry,
    an_epoch,
    some_metrics,
)
from tunery.domain.batches import AnsweredLine, BatchEvent, BatchProblem, BatchStatus
from tunery.domain.errors import Conflict, InvalidRequest
from tunery.domain.files import FilePurpose, FileReport, FileStatus, LineError, LineFormat
from tunery.domain.jobs import (
    Hyperparameters,
    JobError,
    JobEvent,
    JobStatus,
    RequestedHyperparameters,
    Snapshot,
    TrainingMethod,
)
from tunery.domain.tenants import ApiKey, KeyKind, Tenant
from tunery.domain.usage import UsageKind, UsageRecord
from tunery.storage.database import Database
from tunery.storage.repositories.paging import Page
from tunery.storage.repositories.usage import UsageTotal
from tunery.storage.transaction import Transaction

FULL_JOB = a_job(
    parent_model="ft:tiny:acme::parent00",
    validation_file="file-2",
    suffix="süß",
    seed=2**31 - 1,
    method=TrainingMethod.DPO,
    requested=RequestedHyperparameters(3, "auto", 0.1, "auto"),
    resolved=Hyperparameters(3, 8, 0.1, 0.1),
    metadata={"a": "b", "ключ": "\0 \ud7ff"},
    status=JobStatus.FAILED,
    error=JobError("code", "What was wrong: \0", None),
    trained_tokens=2**40,
    fine_tuned_model="ft:tiny:acme::done0000",
    result_files=("file-3", "file-4"),
    started_at=5,
    finished_at=6,
)


ANSWER = AnsweredLine(3, True, {"custom_id": "ключ \0"}, 5, 7)
FULL_BATCH = a_batch(
    output_expires_after_s=3600,
    metadata={"ключ": "\0"},
    status=BatchStatus.FAILED,
    errors=(BatchProblem("code", "What: \0", 3, "url"), BatchProblem("other", "Why")),
    model="ft:tiny:acme::aaaaaaaa",
    output_file_id="file-2",
    error_file_id="file-3",
    total=6,
    completed=5,
    failed=1,
    input_tokens=2**40,
    output_tokens=2**41,
    in_progress_at=1,
    finalizing_at=2,
    completed_at=3,
    failed_at=4,
    expired_at=5,
    cancelling_at=6,
    cancelled_at=7,
)

# ---- each tenant's own

Fill = Callable[[Transaction, Tenant], Any]
Seen = Callable[[Transaction, Tenant], Any]


def fill(tx: Transaction, tenant: Tenant) -> None:
    """Store one of everything, under the same ids for every tenant."""
    tx.files(tenant).add(a_file(filename=tenant.project_id))
    jobs = tx.jobs(tenant)
    jobs.add(a_job(model=tenant.project_id))
    jobs.log("ftjob-1", an_entry(1))
    jobs.log("ftjob-1", an_entry(2, metrics=some_metrics(1)))
    jobs.add_epoch_checkpoint("ftjob-1", an_epoch(1))
    jobs.add_checkpoint(a_checkpoint(1))
    tx.models(tenant).add(a_model(base=tenant.project_id))
    tx.usage(tenant).add(usage_of("req-1", 1), 0)
    tx.batches(tenant).add(a_batch(model=tenant.project_id))
    tx.batches(tenant).add_answers("batch_1", [ANSWER])


def usage_of(request_id: str, tokens: int, kind: UsageKind = UsageKind.CHAT) -> UsageRecord:
    return UsageRecord(request_id, kind, "m", "b", "key_1", "end user", tokens, 2, 3)


EMPTY: Page[Any] = Page((), has_more=False)
VIEWS: dict[str, tuple[Seen, Any]] = {
    "file": (lambda tx, t: tx.files(t).get("file-1"), None),
    "report": (lambda tx, t: tx.files(t).report("file-1"), None),
    "files": (
        lambda tx, t: tx.files(t).page(purpose=None, after=None, limit=9, order="asc"),
        EMPTY,
    ),
    "job": (lambda tx, t: tx.jobs(t).get("ftjob-1"), None),
    "jobs": (lambda tx, t: tx.jobs(t).page(metadata={}, after=None, limit=9), EMPTY),
    "snapshot": (lambda tx, t: tx.jobs(t).snapshot("ftjob-1"), None),
    "job of a file": (lambda tx, t: tx.jobs(t).unfinished_with_file("file-1"), None),
    "events": (lambda tx, t: tx.jobs(t).events("ftjob-1", after=None, limit=9), EMPTY),
    "metrics": (lambda tx, t: tx.jobs(t).metrics("ftjob-1"), []),
    "epochs": (lambda tx, t: tx.jobs(t).epoch_checkpoints("ftjob-1"), []),
    "checkpoints": (lambda tx, t: tx.jobs(t).checkpoints("ftjob-1", after=None, limit=9), EMPTY),
    "model": (lambda tx, t: tx.models(t).get(a_model().name), None),
    "models": (lambda tx, t: tx.models(t).all(), []),
    "adapter": (lambda tx, t: tx.models(t).adapter_in_use(a_model().adapter), False),
    "usage": (lambda tx, t: tx.usage(t).totals(), []),
    "batch": (lambda tx, t: tx.batches(t).get("batch_1"), None),
    "batches": (lambda tx, t: tx.batches(t).page(after=None, limit=9), EMPTY),
    "batch of a file": (lambda tx, t: tx.batches(t).unfinished_with_file("file-1"), None),
    "answered": (lambda tx, t: tx.batches(t).answered_lines("batch_1"), set()),
    "answers": (lambda tx, t: tx.batches(t).answers_after("batch_1", 0, 9), []),
}


def views(tx: Transaction, tenant: Tenant) -> dict[str, Any]:
    return {name: see(tx, tenant) for name, (see, _) in VIEWS.items()}


def fill_checked(tx: Transaction, tenant: Tenant) -> None:
    fill(tx, tenant)
    tx.files(tenant).set_checked("file-1", FileStatus.PROCESSED, FileReport(9, (), 0))
    tx.jobs(tenant).set_snapshot("ftjob-1", Snapshot(1, "p/snap"))


def test_nothing_of_one_project_is_seen_by_another(database: Database) -> None:
    with database.write() as tx:
        fill_checked(tx, OURS)
        nothing = {name: empty for name, (_, empty) in VIEWS.items()}
        assert views(tx, THEIRS) == nothing
        assert all(seen != nothing[name] for name, seen in views(tx, OURS).items())


def test_the_same_ids_in_two_projects_are_two_objects(database: Database) -> None:
    with database.write() as tx:
        fill_checked(tx, OURS)
        fill_checked(tx, THEIRS)
        ours, theirs = views(tx, OURS), views(tx, THEIRS)
    assert ours["file"].filename == OURS.project_id
    assert theirs["file"].filename == THEIRS.project_id
    assert (ours["job"].model, theirs["job"].model) == (OURS.project_id, THEIRS.project_id)
    assert (ours["model"].base, theirs["model"].base) == (OURS.project_id, THEIRS.project_id)


CHANGES: dict[str, Callable[[Transaction, Tenant], None]] = {
    "check file": lambda tx, t: tx.files(t).set_checked(
        "file-1", FileStatus.ERROR, FileReport(1, (), 1)
    ),
    "delete file": lambda tx, t: tx.files(t).delete("file-1"),
    "resolve": lambda tx, t: tx.jobs(t).set_resolved("ftjob-1", Hyperparameters(1, 2, 3.0)),
    "tokens": lambda tx, t: tx.jobs(t).set_trained_tokens("ftjob-1", 5),
    "snapshot": lambda tx, t: tx.jobs(t).set_snapshot("ftjob-1", Snapshot(8, "p/other")),
    "drop steps": lambda tx, t: tx.jobs(t).drop_steps_after("ftjob-1", 0),
    "keep no epoch": lambda tx, t: tx.jobs(t).keep_epoch_checkpoints("ftjob-1", []),
    "delete model": lambda tx, t: tx.models(t).delete(a_model().name),
    "batch errors": lambda tx, t: tx.batches(t).set_errors("batch_1", [BatchProblem("c", "m")]),
    "answer": lambda tx, t: tx.batches(t).add_answers(
        "batch_1", [dataclasses.replace(ANSWER, line=4)]
    ),
    "drop answers": lambda tx, t: tx.batches(t).drop_answers("batch_1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_reaches_its_own_project_only(database: Database, change: str) -> None:
    with database.write() as tx:
        fill_checked(tx, OURS)
        fill_checked(tx, THEIRS)
        before = views(tx, OURS)
        CHANGES[change](tx, THEIRS)
        assert views(tx, OURS) == before
        CHANGES[change](tx, OURS)
        assert views(tx, OURS) != before


def test_another_project_cannot_move_a_job_on(database: Database) -> None:
    with database.write() as tx:
        tx.jobs(OURS).add(a_job())
        with pytest.raises(Conflict):
            tx.jobs(THEIRS).advance(a_job(), JobEvent.CANCELLED)
        assert tx.jobs(OURS).get("ftjob-1") == a_job()


def test_another_project_cannot_move_a_batch_on(database: Database) -> None:
    with database.write() as tx:
        tx.batches(OURS).add(a_batch())
        with pytest.raises(Conflict):
            tx.batches(THEIRS).advance(a_batch(), BatchEvent.CANCELLING, 5)
        assert tx.batches(OURS).get("batch_1") == a_batch()


ADDITIONS: dict[str, Callable[[Transaction], None]] = {
    "file": lambda tx: tx.files(OURS).add(a_file()),
    "job": lambda tx: tx.jobs(OURS).add(a_job()),
    "event": lambda tx: tx.jobs(OURS).log("ftjob-1", an_entry(1)),
    "checkpoint": lambda tx: tx.jobs(OURS).add_checkpoint(a_checkpoint(1)),
    "model": lambda tx: tx.models(OURS).add(a_model()),
    "batch": lambda tx: tx.batches(OURS).add(a_batch()),
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_an_id_is_unique_in_its_project(database: Database, kind: str) -> None:
    with database.write() as tx:
        ADDITIONS[kind](tx)
    with pytest.raises(sa.exc.IntegrityError), database.write() as tx:
        ADDITIONS[kind](tx)


# ---- pages

Listed = Callable[[Transaction, Tenant, str | None, int], Page[Any]]


def add_five(tx: Transaction, tenant: Tenant) -> None:
    for number in range(5):
        tx.files(tenant).add(a_file(f"id-{number}"))
        tx.jobs(tenant).add(a_job(f"id-{number}"))
        tx.batches(tenant).add(a_batch(f"id-{number}"))
        entry = dataclasses.replace(an_entry(number), id=f"id-{number}")
        tx.jobs(tenant).log("ftjob-1", entry)
        tx.jobs(tenant).add_checkpoint(dataclasses.replace(a_checkpoint(number), id=f"id-{number}"))


ASCENDING: dict[str, Listed] = {
    "files, oldest first": lambda tx, t, after, limit: tx.files(t).page(
        purpose=None, after=after, limit=limit, order="asc"
    ),
}
DESCENDING: dict[str, Listed] = {
    "files, newest first": lambda tx, t, after, limit: tx.files(t).page(
        purpose=None, after=after, limit=limit, order="desc"
    ),
    "jobs": lambda tx, t, after, limit: tx.jobs(t).page(metadata={}, after=after, limit=limit),
    "batches": lambda tx, t, after, limit: tx.batches(t).page(after=after, limit=limit),
    "events": lambda tx, t, after, limit: tx.jobs(t).events("ftjob-1", after=after, limit=limit),
    "checkpoints": lambda tx, t, after, limit: tx.jobs(t).checkpoints(
        "ftjob-1", after=after, limit=limit
    ),
}
LISTS = {**ASCENDING, **DESCENDING}


@pytest.mark.parametrize("name", LISTS)
def test_pages_follow_each_other_without_gap_or_repeat(database: Database, name: str) -> None:
    with database.write() as tx:
        add_five(tx, OURS)
        add_five(tx, THEIRS)
    pages = []
    after = None
    with database.read() as tx:
        while True:
            page = LISTS[name](tx, OURS, after, 2)
            pages.append(([item.id for item in page.items], page.has_more))
            if not page.has_more:
                break
            after = page.items[-1].id
        whole = LISTS[name](tx, OURS, None, 5)
    if name in ASCENDING:
        expected = [["id-0", "id-1"], ["id-2", "id-3"], ["id-4"]]
    else:
        expected = [["id-4", "id-3"], ["id-2", "id-1"], ["id-0"]]
    assert pages == [(expected[0], True), (expected[1], True), (expected[2], False)]
    assert [item.id for item in whole.items] == [i for page_ids in expected for i in page_ids]
    assert not whole.has_more


@pytest.mark.parametrize("name", LISTS)
def test_a_page_after_the_last_item_is_empty(database: Database, name: str) -> None:
    with database.write() as tx:
        add_five(tx, OURS)
        last = "id-4" if name in ASCENDING else "id-0"
        assert LISTS[name](tx, OURS, last, 2) == EMPTY


@pytest.mark.parametrize("name", LISTS)
def test_a_page_after_an_id_of_another_project_is_refused_like_an_unknown_one(
    database: Database, name: str
) -> None:
    with database.write() as tx:
        add_five(tx, THEIRS)
        told = []
        for after in ("id-0", "id-9"):
            with pytest.raises(InvalidRequest) as refused:
                LISTS[name](tx, OURS, after, 2)
            told.append((refused.value.message.replace(after, "<id>"), refused.value.param))
    assert told[0] == told[1]
    assert told[0][1] == "after"


def test_events_and_checkpoints_are_paged_within_their_job(database: Database) -> None:
    with database.write() as tx:
        add_five(tx, OURS)
        jobs = tx.jobs(OURS)
        jobs.log("ftjob-2", an_entry(77))
        jobs.add_checkpoint(a_checkpoint(77, "ftjob-2"))
        assert [entry.id for entry in jobs.events("ftjob-2", after=None, limit=9).items] == [
            "ftevent-77"
        ]
        page = jobs.checkpoints("ftjob-2", after=None, limit=9)
        assert [checkpoint.id for checkpoint in page.items] == ["ftckpt_77"]
        for listed in (jobs.events, jobs.checkpoints):
            with pytest.raises(InvalidRequest):
                listed("ftjob-2", after="id-0", limit=9)


def test_files_are_listed_by_purpose(database: Database) -> None:
    with database.write() as tx:
        for number, purpose in enumerate(("fine-tune", "batch", "fine-tune", "evals")):
            tx.files(OURS).add(a_file(f"file-{number}", purpose=FilePurpose(purpose)))
        page = tx.files(OURS).page(purpose="fine-tune", after=None, limit=9, order="asc")
        assert [file.id for file in page.items] == ["file-0", "file-2"]
        page = tx.files(OURS).page(purpose="vision", after=None, limit=9, order="asc")
        assert page == EMPTY
        with pytest.raises(InvalidRequest):  # in the project, but not in this list
            tx.files(OURS).page(purpose="fine-tune", after="file-1", limit=9, order="asc")


# ---- records as they were


@pytest.mark.parametrize("job", [a_job(), FULL_JOB], ids=["sparse", "full"])
def test_a_job_is_read_as_it_was_stored(database: Database, job: Any) -> None:
    with database.write() as tx:
        tx.jobs(OURS).add(job)
    with database.read() as tx:
        assert tx.jobs(OURS).get(job.id) == job


@pytest.mark.parametrize("batch", [a_batch(), FULL_BATCH], ids=["sparse", "full"])
def test_a_batch_is_read_as_it_was_stored(database: Database, batch: Any) -> None:
    with database.write() as tx:
        tx.batches(OURS).add(batch)
    with database.read() as tx:
        assert tx.batches(OURS).get(batch.id) == batch


def test_answers_are_counted_and_read_in_the_order_of_lines(database: Database) -> None:
    answers = [AnsweredLine(n, n != 7, {"n": n}, n, 10 * n) for n in (7, 2, 9, 4)]
    with database.write() as tx:
        batches = tx.batches(OURS)
        batches.add(a_batch())
        batches.add_answers("batch_1", answers[:3])
        batches.add_answers("batch_1", answers[3:])
        batches.add_answers("batch_1", answers)  # a commit whose word was lost, made again
        batch = batches.get("batch_1")
        assert batch is not None
        assert (batch.completed, batch.failed) == (3, 1)
        assert (batch.input_tokens, batch.output_tokens) == (22, 220)
        assert batches.answered_lines("batch_1") == {2, 4, 7, 9}
        page = batches.answers_after("batch_1", 2, 2)
        assert [(a.line, a.succeeded, a.output) for a in page] == [
            (4, True, {"n": 4}),
            (7, False, {"n": 7}),
        ]


def test_a_batch_is_moved_on_from_the_state_it_was_read_in_only(database: Database) -> None:
    with database.write() as tx:
        batches = tx.batches(OURS)
        batches.add(a_batch())
        batches.advance(a_batch(), BatchEvent.ACCEPTED, 5, total=3)
        moved = batches.get("batch_1")
        assert moved == a_batch(status=BatchStatus.IN_PROGRESS, in_progress_at=5, total=3)
        with pytest.raises(Conflict, match="no longer validating"):
            batches.advance(a_batch(), BatchEvent.CANCELLING, 6)
        assert batches.get("batch_1") == moved


def test_a_file_and_what_its_check_found_are_read_as_they_were_stored(database: Database) -> None:
    file = a_file(filename="Zoë's \U0001f600.jsonl", size_bytes=2**40, status=FileStatus.UPLOADED)
    report = FileReport(
        30, (LineError(2, "is \0 bad"), LineError(7, "is worse")), 5, LineFormat.PREFERENCE
    )
    with database.write() as tx:
        tx.files(OURS).add(file)
        assert tx.files(OURS).get(file.id) == file
        assert tx.files(OURS).report(file.id) is None
        tx.files(OURS).set_checked(file.id, FileStatus.ERROR, report)
        assert tx.files(OURS).report(file.id) == report
        assert tx.files(OURS).get(file.id) == dataclasses.replace(
            file,
            status=FileStatus.ERROR,
            status_details="line 2: is \0 bad; line 7: is worse; and 3 more",
        )


def test_a_file_without_errors_has_no_status_details(database: Database) -> None:
    with database.write() as tx:
        tx.files(OURS).add(a_file())
        tx.files(OURS).set_checked("file-1", FileStatus.PROCESSED, FileReport(10, (), 0))
        file = tx.files(OURS).get("file-1")
    assert file is not None
    assert file.status_details is None


def test_events_models_and_checkpoints_are_read_as_they_were_stored(database: Database) -> None:
    with database.write() as tx:
        entry = an_entry(1, metrics=some_metrics(3))
        tx.jobs(OURS).log("ftjob-1", entry)
        tx.jobs(OURS).add_epoch_checkpoint("ftjob-1", an_epoch(3))
        tx.jobs(OURS).add_checkpoint(a_checkpoint(3))
        tx.models(OURS).add(a_model())
    with database.read() as tx:
        assert tx.jobs(OURS).events("ftjob-1", after=None, limit=1).items == (entry,)
        assert tx.jobs(OURS).metrics("ftjob-1") == [some_metrics(3)]
        assert tx.jobs(OURS).epoch_checkpoints("ftjob-1") == [an_epoch(3)]
        page = tx.jobs(OURS).checkpoints("ftjob-1", after=None, limit=1)
        assert page.items == (a_checkpoint(3),)
        assert tx.models(OURS).get(a_model().name) == a_model()


# ---- jobs move on


def test_a_job_is_moved_on_only_from_the_state_it_was_read_in(database: Database) -> None:
    with database.write() as tx:
        tx.jobs(OURS).add(a_job())
    with database.write() as tx:
        tx.jobs(OURS).advance(a_job(), JobEvent.CANCELLED, finished_at=9)
    with pytest.raises(Conflict), database.write() as tx:  # read before the cancellation
        tx.jobs(OURS).advance(a_job(), JobEvent.FILES_ACCEPTED)
    with database.read() as tx:
        assert tx.jobs(OURS).get("ftjob-1") == a_job(status=JobStatus.CANCELLED, finished_at=9)


def test_a_step_that_the_states_do_not_have_is_refused(database: Database) -> None:
    with database.write() as tx:
        tx.jobs(OURS).add(a_job())
        with pytest.raises(Conflict):
            tx.jobs(OURS).advance(a_job(), JobEvent.PUBLISHED)
        assert tx.jobs(OURS).get("ftjob-1") == a_job()


@pytest.mark.parametrize("field", ["training_file", "validation_file"])
@pytest.mark.parametrize("status", JobStatus)
def test_a_file_is_needed_until_its_job_has_ended(
    database: Database, field: str, status: JobStatus
) -> None:
    with database.write() as tx:
        tx.jobs(OURS).add(a_job(**{"training_file": "file-x", field: "file-9", "status": status}))
        ended = status in ("succeeded", "failed", "cancelled")
        assert tx.jobs(OURS).unfinished_with_file("file-9") == (None if ended else "ftjob-1")
        assert tx.jobs(OURS).unfinished_with_file("file-8") is None


def test_steps_behind_a_snapshot_are_dropped_and_messages_stay(database: Database) -> None:
    with database.write() as tx:
        jobs = tx.jobs(OURS)
        jobs.log("ftjob-1", an_entry(0))
        for step in (1, 2, 10):  # as text, "10" would come before "2"
            jobs.log("ftjob-1", an_entry(step, metrics=some_metrics(step)))
            jobs.add_epoch_checkpoint("ftjob-1", an_epoch(step))
        jobs.log("ftjob-2", an_entry(11, metrics=some_metrics(11)))
        jobs.drop_steps_after("ftjob-1", 2)
        assert [m.step for m in jobs.metrics("ftjob-1")] == [1, 2]
        assert [c.step for c in jobs.epoch_checkpoints("ftjob-1")] == [1, 2]
        assert [m.step for m in jobs.metrics("ftjob-2")] == [11]
        page = jobs.events("ftjob-1", after=None, limit=9)
        assert [entry.id for entry in page.items] == ["ftevent-2", "ftevent-1", "ftevent-0"]


def test_only_the_named_epochs_are_kept(database: Database) -> None:
    with database.write() as tx:
        jobs = tx.jobs(OURS)
        for step in (1, 2, 3, 4):
            jobs.add_epoch_checkpoint("ftjob-1", an_epoch(step))
        jobs.keep_epoch_checkpoints("ftjob-1", [2, 4])
        assert [c.step for c in jobs.epoch_checkpoints("ftjob-1")] == [2, 4]


def test_an_adapter_is_in_use_while_a_model_has_it(database: Database) -> None:
    with database.write() as tx:
        models = tx.models(OURS)
        models.add(a_model("ft:one"))
        models.add(a_model("ft:two"))
        models.delete("ft:one")
        assert models.adapter_in_use(a_model().adapter)
        assert [model.name for model in models.all()] == ["ft:two"]
        models.delete("ft:two")
        assert not models.adapter_in_use(a_model().adapter)


# ---- the ledger


def test_a_request_counts_once_in_its_project(database: Database) -> None:
    with database.write() as tx:
        tx.usage(OURS).add(usage_of("req-1", 10), 0)
        tx.usage(OURS).add(usage_of("req-1", 999), 1)
        tx.usage(OURS).add(usage_of("req-2", 2**40), 2)
        tx.usage(OURS).add(usage_of("ftjob-1", 5, UsageKind.TRAINING), 3)
        tx.usage(THEIRS).add(usage_of("req-1", 4), 4)
    with database.read() as tx:
        assert tx.usage(OURS).totals() == [
            UsageTotal(UsageKind.CHAT, 2, 2**40 + 10, 4, 6),
            UsageTotal(UsageKind.TRAINING, 1, 5, 2, 3),
        ]
        assert tx.usage(THEIRS).totals() == [UsageTotal(UsageKind.CHAT, 1, 4, 2, 3)]


# ---- accounts


def a_key(key_id: str, tenant: Tenant) -> ApiKey:
    return ApiKey(key_id, KeyKind.PROJECT, "name", "abcd", tenant, 5, None)


def test_keys_are_found_by_their_hmac_and_revoked_once(database: Database) -> None:
    with database.write() as tx:
        tx.accounts.add_organization("org-1", "acme", "Acme", 1)
        for number, tenant in enumerate((OURS, THEIRS), 1):
            tx.accounts.add_project(tenant.project_id, "org-1", "A project", number)
            tx.accounts.add_key(a_key(f"key_{number}", tenant), bytes([number]) * 32)
    with database.write() as tx:
        accounts = tx.accounts
        assert accounts.first_tenant() == OURS
        assert accounts.tenant(THEIRS.project_id) == THEIRS
        assert accounts.tenant("proj_none") is None
        assert accounts.organization_id("acme") == "org-1"
        assert accounts.organization_id("none") is None
        assert accounts.key_by_hmac(b"\x02" * 32) == a_key("key_2", THEIRS)
        assert accounts.key_by_hmac(b"\x03" * 32) is None
        assert accounts.revoke_key("key_2", 77)
        assert not accounts.revoke_key("key_2", 78)
        assert not accounts.revoke_key("key_3", 78)
        assert accounts.keys() == [
            a_key("key_1", OURS),
            dataclasses.replace(a_key("key_2", THEIRS), revoked_at=77),
        ]
