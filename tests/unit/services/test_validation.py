"""Files are checked, then jobs: a bad line is named by its number and never trained on."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.rows import CONTEXT_TOKENS, OURS, a_file, a_job, chat_line, chat_lines, render_with
from support.tiny import TEMPLATE
from tunery.datasets.rendering import ChatRenderer
from tunery.datasets.tokenizer import TextTokenizer
from tunery.domain.files import FileReport, FileStatus
from tunery.domain.jobs import (
    Hyperparameters,
    Job,
    JobStatus,
    RequestedHyperparameters,
    TrainingMethod,
)
from tunery.domain.models import BaseModel
from tunery.domain.tasks import LeaseLost, Task, TaskKind
from tunery.services import files, jobs, training, validation
from tunery.services.models import ModelDirectory
from tunery.storage.blobs import LocalBlobStore
from tunery.storage.database import Database


def claim(database: Database, kind: TaskKind) -> Task:
    with database.write() as tx:
        task = tx.queue.claim([kind], 60)
    assert task is not None
    return task


def add_file(
    database: Database, blobs: LocalBlobStore, data: bytes, file_id: str = "file-1"
) -> None:
    file = a_file(file_id, status=FileStatus.UPLOADED)
    blobs.put(file.blob_key, data)
    with database.write() as tx:
        tx.files(OURS).add(file)
        tx.queue.add(OURS, TaskKind.CHECK_FILE, file_id)


def check(
    database: Database, blobs: LocalBlobStore, data: bytes, file_id: str = "file-1"
) -> FileStatus | None:
    add_file(database, blobs, data, file_id)
    return validation.check_uploaded_file(database, blobs, claim(database, TaskKind.CHECK_FILE))


def prepare(
    database: Database,
    blobs: LocalBlobStore,
    directory: ModelDirectory,
    renderers: validation.Renderers = render_with,
    **changes: Any,
) -> Job:
    base = directory.base()
    job = a_job(**{"base_digest": base.digest, **changes})
    with database.write() as tx:
        tx.jobs(OURS).add(job)
        tx.queue.add(OURS, TaskKind.PREPARE_JOB, job.id)
    task = claim(database, TaskKind.PREPARE_JOB)
    validation.prepare_job(database, blobs, base, renderers, task)
    return jobs.get_job(database, OURS, job.id)


def test_a_good_file_is_ready(database: Database, blobs: LocalBlobStore) -> None:
    assert check(database, blobs, chat_lines(3)) is FileStatus.PROCESSED
    with database.write() as tx:
        assert tx.files(OURS).report("file-1") == FileReport(3, (), 0)
        assert tx.queue.claim(list(TaskKind), 60) is None


def test_the_lines_of_a_bad_file_are_named(database: Database, blobs: LocalBlobStore) -> None:
    data = chat_line() + b"\n" + chat_line(tools=5) + chat_line() + b'{"messages": []}\n'
    assert check(database, blobs, data) is FileStatus.ERROR
    file = files.get_file(database, OURS, "file-1")
    assert file.status is FileStatus.ERROR
    assert file.status_details is not None
    assert "line 3: " in file.status_details
    assert "line 5: " in file.status_details
    assert "line 4: " not in file.status_details
    with database.read() as tx:
        report = tx.files(OURS).report("file-1")
    assert report is not None
    assert (report.examples, report.error_count) == (4, 2)


def test_the_check_of_a_deleted_file_is_done(database: Database, blobs: LocalBlobStore) -> None:
    add_file(database, blobs, chat_lines(1))
    task = claim(database, TaskKind.CHECK_FILE)
    with database.write() as tx:
        tx.files(OURS).delete("file-1")
    assert validation.check_uploaded_file(database, blobs, task) is None
    with pytest.raises(LeaseLost), database.write() as tx:
        tx.queue.hold(task)


def test_a_check_whose_task_is_lost_changes_nothing(
    database: Database, blobs: LocalBlobStore
) -> None:
    add_file(database, blobs, chat_lines(1))
    task = claim(database, TaskKind.CHECK_FILE)
    with database.write() as tx:
        tx.queue.drop(OURS, "file-1")
    with pytest.raises(LeaseLost):
        validation.check_uploaded_file(database, blobs, task)
    assert files.get_file(database, OURS, "file-1").status is FileStatus.UPLOADED


def test_a_fit_job_is_queued_with_its_hyperparameters_resolved(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    check(database, blobs, chat_lines(12))
    check(database, blobs, chat_lines(3), "file-2")
    job = prepare(database, blobs, directory, validation_file="file-2")
    # Batches of 8; 12 examples are 1.5 steps an epoch, so the most epochs that auto gives: 25.
    assert (job.status, job.resolved) == (JobStatus.QUEUED, Hyperparameters(25, 8, 1.0))
    assert claim(database, TaskKind.TRAIN_JOB).subject == job.id
    event = jobs.list_events(database, OURS, job.id, after=None, limit=1).items[0]
    assert event.message == "Files validated, moving job to queued state"


def test_hyperparameters_that_were_given_are_kept(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    check(database, blobs, chat_lines(10))
    job = prepare(database, blobs, directory, requested=RequestedHyperparameters(2, 3, 0.25))
    assert job.resolved == Hyperparameters(2, 3, 0.25)


def pairs(count: int, worse: str = "What?", **more: Any) -> bytes:
    """Return a preference file."""
    line = {
        "input": {"messages": [{"role": "user", "content": "Hi!"}]},
        "preferred_output": [{"role": "assistant", "content": "Hello!"}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
        **more,
    }
    return (orjson.dumps(line) + b"\n") * count


def test_preferences_are_prepared_for_the_method_that_learns_them(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    assert check(database, blobs, pairs(12)) is FileStatus.PROCESSED
    check(database, blobs, pairs(1), "file-2")
    job = prepare(
        database,
        blobs,
        directory,
        validation_file="file-2",
        method=TrainingMethod.DPO,
        requested=RequestedHyperparameters(n_epochs=2, beta="auto"),
    )
    assert job.error is None
    assert job.resolved == Hyperparameters(2, 8, 0.2, 0.1)


PREFERENCES_NEEDED = (
    "Input file {} is in the fine-tune-chat format, but the specified fine-tuning job is not using"
    " 'supervised' as the training method (provided method=dpo)."
)
CHATS_NEEDED = (
    "Input file {} is in the fine-tune-preference format, but the specified fine-tuning job is not"
    " using 'dpo' as the training method (provided method=supervised)."
)


@pytest.mark.parametrize(
    ("method", "data", "held_out", "param", "words"),
    [
        (TrainingMethod.DPO, chat_lines(12), b"", "training_file", PREFERENCES_NEEDED),
        (TrainingMethod.SUPERVISED, pairs(12), b"", "training_file", CHATS_NEEDED),
        (TrainingMethod.DPO, pairs(12), chat_lines(1), "validation_file", PREFERENCES_NEEDED),
        (TrainingMethod.SUPERVISED, chat_lines(12), pairs(1), "validation_file", CHATS_NEEDED),
        # Its lines are of the wrong kind, whatever else is wrong with them.
        (TrainingMethod.SUPERVISED, pairs(3, extra=1), b"", "training_file", CHATS_NEEDED),
    ],
)
def test_a_file_for_another_method_is_refused_in_openais_words(
    database: Database,
    blobs: LocalBlobStore,
    directory: ModelDirectory,
    method: TrainingMethod,
    data: bytes,
    held_out: bytes,
    param: str,
    words: str,
) -> None:
    check(database, blobs, data)
    if held_out:
        check(database, blobs, held_out, "file-2")
    file_id = "file-2" if held_out else "file-1"
    job = prepare(
        database, blobs, directory, method=method, validation_file="file-2" if held_out else None
    )
    assert job.error is not None
    assert (job.error.code, job.error.param) == (f"invalid_{param}", param)
    kind = param.replace("_", " ")
    message = f"The job failed due to an invalid {kind}. {words.format(file_id)}"
    assert job.error.message == message


LONG_QUESTION = {"messages": [{"role": "user", "content": "x" * CONTEXT_TOKENS}]}
UNFIT_PAIRS = {
    "few": (pairs(9), "has 9 example(s), but must have at least 10 examples"),
    "bad lines": (pairs(10) + pairs(1, worse="Hello!"), "line 11: both outputs are the same"),
    "cut": (
        pairs(10, input=LONG_QUESTION),
        f"Nothing of it would be learned: examples are cut at {CONTEXT_TOKENS} tokens",
    ),
}


@pytest.mark.parametrize("why", UNFIT_PAIRS)
def test_a_job_on_unfit_preferences_fails_and_says_why(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, why: str
) -> None:
    data, words = UNFIT_PAIRS[why]
    check(database, blobs, data)
    job = prepare(database, blobs, directory, method=TrainingMethod.DPO)
    assert job.error is not None
    assert job.error.param == "training_file"
    assert words in job.error.message


LONG = chat_line().replace(b"Hi!", b"x" * CONTEXT_TOKENS)  # a byte is a token
UNFIT: dict[str, tuple[bytes, bytes, str, str, str]] = {
    "few": (chat_lines(9), b"", "invalid_n_examples", "training_file", "has 9 example(s), but"),
    "bad lines": (
        chat_lines(10) + b'{"messages": []}\n' + chat_line() + chat_line(tools=5),
        b"",
        "invalid_training_file",
        "training_file",
        "2 of 13 lines cannot be used: line 11: ",
    ),
    "bad held-out line": (
        chat_lines(10),
        chat_lines(1) + b'{"messages": []}\n',
        "invalid_validation_file",
        "validation_file",
        "1 of 2 lines cannot be used: line 2: ",
    ),
    "nothing to learn within the context": (
        LONG * 10,
        b"",
        "invalid_training_file",
        "training_file",
        f"Nothing of it would be learned: examples are cut at {CONTEXT_TOKENS} tokens",
    ),
    "nothing held out within the context": (
        chat_lines(10),
        LONG,
        "invalid_validation_file",
        "validation_file",
        "Nothing of it would be learned",
    ),
}


@pytest.mark.parametrize("why", UNFIT)
def test_an_unfit_job_fails_and_says_why(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory, why: str
) -> None:
    data, held_out, code, param, words = UNFIT[why]
    check(database, blobs, data)
    if held_out:
        check(database, blobs, held_out, "file-2")
    job = prepare(database, blobs, directory, validation_file="file-2" if held_out else None)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.param) == (code, param)
    assert words in job.error.message
    assert job.finished_at is not None
    with database.write() as tx:
        assert tx.queue.claim(list(TaskKind), 60) is None


def test_what_will_be_learned_is_told_and_kept_line_by_line(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    half = chat_line("y" * CONTEXT_TOKENS)
    check(database, blobs, chat_lines(9) + b"\n" + LONG + half + chat_lines(1))
    check(database, blobs, chat_lines(2), "file-2")
    job = prepare(database, blobs, directory, validation_file="file-2")
    assert job.status is JobStatus.QUEUED
    # A turn is its role, its content, two marks and two newlines, and a byte is a token.
    question = len("user") + len("Hi!") + 4
    answer = len("assistant") + 4
    learned = len("Answer 0.") + 1  # and the mark that ends it
    short = question + answer + learned - 1
    tokens = 10 * short + 2 * CONTEXT_TOKENS
    left = CONTEXT_TOKENS - question - (len("assistant") + 2)
    events = jobs.list_events(database, OURS, job.id, after=None, limit=10).items
    validated, held_out, told = events[:3]
    assert validated.message == "Files validated, moving job to queued state"
    assert (told.level, told.message) == (
        "warn",
        f"Tokens of file file-1: 12 examples; {10 * learned + left} of {tokens} tokens are learned;"
        f" 2 lines were cut at {CONTEXT_TOKENS} tokens, 1 lost every learned token: line 11",
    )
    assert told.data is not None
    assert (told.data["file"], told.data["learned"]) == ("file-1", 10 * learned + left)
    assert (told.data["cut"], told.data["lost_lines"]) == (2, [11])
    assert (held_out.level, held_out.message) == (
        "info",
        f"Tokens of file file-2: 2 examples; {2 * learned} of {2 * short} tokens are learned",
    )
    folder = f"{OURS.project_id}/jobs/{job.id}/account"
    table = gzip.decompress(blobs.read(f"{folder}/file-1.csv.gz")).decode()
    rows = [tuple(map(int, row.values())) for row in csv.DictReader(io.StringIO(table))]
    assert [row[0] for row in rows] == [*range(1, 10), 11, 12, 13]
    assert rows[0] == (1, short, short, learned, 0)
    long = short - learned + 1 - len("Hi!") + CONTEXT_TOKENS + len("Hello.")
    assert rows[9] == (11, long, CONTEXT_TOKENS, 0, len("Hello.") + 1)
    whole = short - learned + 1 + CONTEXT_TOKENS
    assert rows[10] == (12, whole, CONTEXT_TOKENS, left, CONTEXT_TOKENS + 1 - left)
    training.clean_up(database, blobs, OURS, job.id)
    assert len(list(blobs.keys(folder))) == 2


def test_of_preferences_both_answers_are_told_and_the_conversation_once(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    worse = "x" * CONTEXT_TOKENS
    check(database, blobs, pairs(10) + pairs(1, worse=worse) + pairs(1, input=LONG_QUESTION))
    job = prepare(database, blobs, directory, method=TrainingMethod.DPO)
    assert job.status is JobStatus.QUEUED
    begins = len("user") + len("Hi!") + 4 + len("assistant") + 2  # what both answers stand after
    better = len("Hello!") + 1  # and the mark that ends it; a newline follows
    short = begins + better + 1 + len("What?") + 2
    left = CONTEXT_TOKENS - begins
    learned = 10 * (better + len("What?") + 1) + better + left
    tokens = 10 * short + begins + better + 1 + left + CONTEXT_TOKENS
    (told,) = [
        event
        for event in jobs.list_events(database, OURS, job.id, after=None, limit=10).items
        if event.message.startswith("Tokens of")
    ]
    assert (told.level, told.message) == (
        "warn",
        f"Tokens of file file-1: 12 examples; {learned} of {tokens} tokens are learned;"
        f" 2 lines were cut at {CONTEXT_TOKENS} tokens, 1 lost every learned token: line 12",
    )
    packed = blobs.read(f"{training.account_prefix(OURS, job.id)}/file-1.csv.gz")
    rows = gzip.decompress(packed).decode().splitlines()
    assert rows[1] == f"1,{short},{short},{better + len('What?') + 1},0"
    # The second answer's end, and the newline after it, are behind the cut.
    whole = begins + better + 1 + CONTEXT_TOKENS + 2
    kept = begins + better + 1 + left
    lost = CONTEXT_TOKENS + 1 - left
    assert rows[11] == f"11,{whole},{kept},{better + left},{lost}"


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_the_table_stays_with_a_job_that_ended_unless_it_was_cancelled(
    database: Database, blobs: LocalBlobStore, status: JobStatus
) -> None:
    with database.write() as tx:
        tx.jobs(OURS).add(a_job(status=status))
    folder = training.account_prefix(OURS, "ftjob-1")
    blobs.put(f"{folder}/file-1.csv.gz", b"x")
    assert training.clean_up(database, blobs, OURS, "ftjob-1")
    kept = [] if status is JobStatus.CANCELLED else [f"{folder}/file-1.csv.gz"]
    assert list(blobs.keys(OURS.project_id)) == kept


def test_no_table_is_kept_of_a_file_with_a_line_that_the_template_refuses(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    refusing = "{% if messages | length > 2 %}{{ raise_exception('no') }}{% endif %}"

    def renderers(base: BaseModel) -> ChatRenderer:
        return ChatRenderer(TextTokenizer(Path(base.path)), refusing + TEMPLATE, {})

    turn = {"role": "assistant", "content": "And?"}
    value = orjson.loads(chat_line())
    value["messages"].append(turn)
    check(database, blobs, chat_lines(10) + orjson.dumps(value))
    job = prepare(database, blobs, directory, renderers)
    assert job.error is not None
    assert "1 of 11 lines cannot be used: line 11: " in job.error.message
    assert list(blobs.keys(OURS.project_id)) == []


def test_a_job_whose_file_was_deleted_fails(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    job = prepare(database, blobs, directory)
    assert job.error is not None
    assert (job.status, job.error.param) == (JobStatus.FAILED, "training_file")
    assert "file-1 was deleted" in job.error.message


def test_a_job_waits_while_its_file_is_unchecked(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    add_file(database, blobs, chat_lines(10))
    with pytest.raises(validation.NotYet):
        prepare(database, blobs, directory)
    assert jobs.get_job(database, OURS, "ftjob-1").status is JobStatus.VALIDATING_FILES


def test_a_job_cancelled_while_it_is_prepared_stays_cancelled(
    database: Database, blobs: LocalBlobStore, directory: ModelDirectory
) -> None:
    check(database, blobs, chat_lines(10))
    with database.write() as tx:
        tx.jobs(OURS).add(a_job(base_digest=directory.base().digest))
        tx.queue.add(OURS, TaskKind.PREPARE_JOB, "ftjob-1")
    task = claim(database, TaskKind.PREPARE_JOB)
    jobs.cancel_job(database, OURS, "ftjob-1")
    with pytest.raises(LeaseLost):
        validation.prepare_job(database, blobs, directory.base(), render_with, task)
    assert jobs.get_job(database, OURS, "ftjob-1").status is JobStatus.CANCELLED
