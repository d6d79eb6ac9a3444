"""A project moves in: what comes, what stays, and that a broken run leaves nothing in its place."""

import base64
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.rows import OURS, THEIRS, a_checkpoint, a_file, a_job, an_entry, chat_lines
from tunery.domain.errors import InvalidRequest, NotFound, Unavailable
from tunery.domain.files import FilePurpose, FileStatus
from tunery.domain.imports import (
    BrokenOff,
    SourceFile,
    SourceJob,
    SourceModel,
    SourceUsage,
)
from tunery.domain.jobs import Checkpoint, Job, JobStatus, LogEntry
from tunery.domain.tasks import TaskKind
from tunery.services import jobs, moving
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database

THERE = "https://there.test/v1"
MODEL = "ft:gpt-4o-mini-2024-07-18:acme:support:AbC123"
DATA = chat_lines(12)
CSV = b"step,train_loss\n1,0.5\n"


def old_job(job_id: str = "ftjob-1", **changes: Any) -> Job:
    values: dict[str, Any] = {
        "model": "gpt-4o-mini-2024-07-18",
        "base_digest": "",
        "status": JobStatus.SUCCEEDED,
        "training_file": "file-t",
        "fine_tuned_model": MODEL,
        "imported_from": THERE,
        **changes,
    }
    return a_job(job_id, **values)


@dataclass(slots=True)
class Shelf:
    """A source whose objects are at hand, and that breaks off where it is told to."""

    contents: dict[str, bytes] = field(default_factory=lambda: {"file-t": DATA})
    listed: list[Job] = field(default_factory=lambda: [old_job()])
    files_there: dict[str, SourceFile] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    tuned: list[SourceModel] = field(default_factory=list)
    breaks: dict[str, int] = field(default_factory=dict)  # how often a file breaks off
    address: str = THERE

    def models(self) -> Sequence[SourceModel]:
        return self.tuned

    def jobs(self) -> Sequence[SourceJob]:
        return [SourceJob(job.id, job) for job in self.listed]

    def events(self, job_id: str) -> Sequence[LogEntry]:
        return [dataclasses.replace(an_entry(n), id=f"{job_id}-{n}") for n in (1, 2)]

    def checkpoints(self, job_id: str) -> Sequence[Checkpoint]:
        return [dataclasses.replace(a_checkpoint(n, job_id), id=f"{job_id}-{n}") for n in (3, 6)]

    def files(self) -> Sequence[SourceFile]:
        made = {
            name: SourceFile(name, f"{name}.jsonl", "fine-tune", len(data), 1_600_000_000, None)
            for name, data in self.contents.items()
        }
        there = {**made, **self.files_there}
        return [file for name, file in there.items() if name not in self.unlisted]

    def file(self, file_id: str) -> SourceFile | None:
        return self.files_there.get(file_id)

    @contextmanager
    def content(self, file_id: str) -> Iterator[Iterator[bytes]]:
        data = self.contents.get(file_id)
        if data is None:
            raise NotFound("gone")
        yield self._chunks(file_id, data)

    def _chunks(self, file_id: str, data: bytes) -> Iterator[bytes]:
        yield data[:5]
        if self.breaks.get(file_id, 0):
            self.breaks[file_id] -= 1
            raise BrokenOff("a connection that broke off")
        yield data[5:]

    def usage(self, since: int) -> Sequence[SourceUsage] | None:
        return None


def move(database: Database, blobs: LocalBlobStore, source: Shelf) -> moving.Brought:
    plan = moving.look(database, OURS, source)
    return moving.bring(database, blobs, OURS, source, plan, lambda _: None)


def a_result(file_id: str, size_bytes: int | None) -> SourceFile:
    return SourceFile(file_id, "step_metrics.csv", "fine-tune-results", size_bytes, 5, None)


def test_a_file_keeps_its_id_name_and_times_and_is_queued_to_be_checked(
    database: Database, blobs: LocalBlobStore
) -> None:
    brought = move(database, blobs, Shelf())
    assert (brought.files, brought.jobs, brought.size_bytes) == (1, 1, len(DATA))
    with database.write() as tx:
        file = tx.files(OURS).get("file-t")
        task = tx.queue.claim([TaskKind.CHECK_FILE], 60)
    assert file is not None
    assert (file.filename, file.created_at) == ("file-t.jsonl", 1_600_000_000)
    assert (file.size_bytes, file.status) == (len(DATA), FileStatus.UPLOADED)
    assert blobs.read(file.blob_key) == DATA
    assert task is not None
    assert task.subject == "file-t"


def test_a_job_comes_with_its_whole_story_and_says_where_it_is_from(
    database: Database, blobs: LocalBlobStore
) -> None:
    move(database, blobs, Shelf())
    assert jobs.get_job(database, OURS, "ftjob-1") == old_job()
    events = jobs.list_events(database, OURS, "ftjob-1", after=None, limit=9).items
    assert [event.message for event in events[1:]] == ["line 2", "line 1"]
    assert f"Imported from {THERE}" in events[0].message
    assert "tunery import openai --tune ftjob-1" in events[0].message
    found = jobs.list_checkpoints(database, OURS, "ftjob-1", after=None, limit=9).items
    assert [one.step for one in found] == [6, 3]


@pytest.mark.parametrize("announced", ["coded", "plain", "unknown"])
@pytest.mark.parametrize("coded", [True, False])
def test_a_result_file_is_kept_as_csv_however_it_comes(
    database: Database, blobs: LocalBlobStore, coded: bool, announced: str
) -> None:
    text = base64.b64encode(CSV)
    size = {"coded": len(text if coded else CSV), "plain": len(CSV), "unknown": None}[announced]
    source = Shelf(contents={"file-t": DATA, "file-r": text if coded else CSV})
    source.files_there = {"file-r": a_result("file-r", size)}
    assert move(database, blobs, source).failed == []
    with database.read() as tx:
        file = tx.files(OURS).get("file-r")
    assert file is not None
    assert (file.purpose, file.size_bytes) == (FilePurpose.FINE_TUNE_RESULTS, len(CSV))
    assert blobs.read(file.blob_key) == CSV


@pytest.mark.parametrize("times", [1, moving.TRIES - 1])
def test_a_file_that_breaks_off_is_fetched_again(
    database: Database, blobs: LocalBlobStore, times: int
) -> None:
    assert move(database, blobs, Shelf(breaks={"file-t": times})).failed == []
    with database.read() as tx:
        assert tx.files(OURS).get("file-t") is not None


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_file_of_another_size_is_not_kept_and_comes_with_the_next_run(
    database: Database, blobs: LocalBlobStore, size: int
) -> None:
    source = Shelf()
    source.files_there = {"file-t": SourceFile("file-t", "t.jsonl", "fine-tune", size, 5, None)}
    (failed,) = move(database, blobs, source).failed
    assert f"got {len(DATA)} bytes of {size}" in failed.why
    assert list(blobs.keys(OURS.project_id)) == []
    source.files_there = {}
    assert move(database, blobs, source).files == 1


def test_a_run_that_ends_between_bytes_and_row_is_made_good_by_the_next(
    database: Database, blobs: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Shelf()
    plan = moving.look(database, OURS, source)
    with monkeypatch.context() as patch:

        def killed() -> Any:
            raise Unavailable("killed")

        patch.setattr(database, "write", killed)
        with pytest.raises(Unavailable):
            moving.bring(database, blobs, OURS, source, plan, lambda _: None)
    assert len(list(blobs.keys(OURS.project_id))) == 1  # bytes that no row knows
    assert moving.look(database, OURS, source) == plan
    assert move(database, blobs, source).files == 1
    assert len(list(blobs.keys(OURS.project_id))) == 1


def test_an_older_plan_carried_out_once_more_adds_nothing(
    database: Database, blobs: LocalBlobStore
) -> None:
    source = Shelf()
    plan = moving.look(database, OURS, source)
    for times in (1, 0):  # as two runs at the same time do
        brought = moving.bring(database, blobs, OURS, source, plan, lambda _: None)
        assert brought.jobs == times
    with database.write() as tx:
        assert tx.queue.claim([TaskKind.CHECK_FILE], 60) is not None
        assert tx.queue.claim([TaskKind.CHECK_FILE], 60) is None
    assert len(jobs.list_events(database, OURS, "ftjob-1", after=None, limit=9).items) == 3


def test_what_is_here_is_another_projects_no_less_to_come(
    database: Database, blobs: LocalBlobStore
) -> None:
    source = Shelf()
    move(database, blobs, source)
    ours, theirs = (moving.look(database, tenant, source) for tenant in (OURS, THEIRS))
    assert (ours.jobs, ours.files, ours.jobs_here, ours.files_here) == ((), (), 1, 1)
    assert (len(theirs.jobs), len(theirs.files), theirs.jobs_here) == (1, 1, 0)
    moving.bring(database, blobs, THEIRS, source, theirs, lambda _: None)
    with database.read() as tx:
        keys = [file.blob_key for t in (OURS, THEIRS) if (file := tx.files(t).get("file-t"))]
    assert keys == [f"{tenant.project_id}/files/file-t" for tenant in (OURS, THEIRS)]


def test_what_is_gone_and_what_is_for_something_else_is_told(
    database: Database, blobs: LocalBlobStore
) -> None:
    del blobs
    source = Shelf(contents={"file-old": DATA})
    source.listed = [
        old_job(validation_file="file-old", result_files=("file-r",)),
        old_job("ftjob-2", fine_tuned_model=None),
    ]
    source.files_there = {
        "file-old": SourceFile("file-old", "v.jsonl", "fine-tune", 5, 5, 1_600_000_000),
        "file-b": SourceFile("file-b", "b.jsonl", "batch", 5, 5, None),
        "file-r": a_result("file-r", 9),
    }
    source.unlisted = {"file-r"}  # and yet it is there, when it is asked for by name
    source.tuned = [
        SourceModel(MODEL, 5),
        SourceModel("ft:lost", 5),
        SourceModel(f"{MODEL}:ckpt-step-3", 5),
    ]
    plan = moving.look(database, OURS, source)
    assert {one.what: one.why for one in plan.left} == {
        "file-t": "deleted there; ftjob-1, ftjob-2 were trained on it, and cannot be trained anew"
        " unless you have it: --file file-t=PATH",
        "file-old": "expired there; ftjob-1 would be trained anew without validation",
        "ft:lost": "no job that can move has made it",
    }
    assert [file.id for file in plan.files] == ["file-r"]
    assert plan.other_files == {"batch": 1}
    assert plan.size_bytes == 9


def test_a_file_of_the_owners_own_takes_the_place_of_one_that_is_gone(
    database: Database, blobs: LocalBlobStore
) -> None:
    source = Shelf(contents={})
    move(database, blobs, source)
    with pytest.raises(InvalidRequest, match="No imported job names the file file-x"):
        moving.add_file(database, blobs, OURS, "file-x", "mine.jsonl", DATA)
    assert moving.add_file(database, blobs, OURS, "file-t", "mine.jsonl", DATA)
    assert not moving.add_file(database, blobs, OURS, "file-t", "other.jsonl", b"{}")
    with database.read() as tx:
        file = tx.files(OURS).get("file-t")
    assert file is not None
    assert (file.filename, blobs.read(file.blob_key)) == ("mine.jsonl", DATA)


def test_a_file_that_is_here_is_not_told_as_lacking(
    database: Database, blobs: LocalBlobStore
) -> None:
    with database.write() as tx:
        tx.files(OURS).add(a_file("file-t"))
    plan = moving.look(database, OURS, Shelf(contents={}))
    assert (plan.left, plan.files, plan.files_here) == ((), (), 1)
