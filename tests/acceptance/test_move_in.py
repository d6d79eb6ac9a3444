"""`tunery import openai`: from a second tunery that behaves as OpenAI's service, over real HTTP."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from support.quirks import Quirks, proxy
from support.server import (
    Server,
    Tuned,
    ask,
    chat_lines,
    environment,
    make_catalogue,
    method,
    poll,
    tuned_model,
    tunery,
    upload,
)
from tunery.storage.catalogue import Catalogue

OLD_BASE = "gpt-4o-mini-2024-07-18"


@pytest.fixture(scope="module")
def source(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a tunery that plays OpenAI, with a base of its name."""
    models = make_catalogue(tmp_path_factory.mktemp("there"), tiny_model)
    Catalogue(models).alias(OLD_BASE, "tiny")
    with Server(tmp_path_factory.mktemp("source"), models) as running:
        yield running


@pytest.fixture(scope="module")
def old(source: Server) -> Tuned:
    """Return a finished job there: 12 examples, three epochs, checkpoints and a result file."""
    client = source.client()
    training, validation = (
        upload(client, chat_lines(12)),
        upload(client, chat_lines(3), "valid.jsonl"),
    )
    job = client.fine_tuning.jobs.create(
        model=OLD_BASE,
        training_file=training.id,
        validation_file=validation.id,
        suffix="support",
        seed=11,
        metadata={"team": "blue"},
        method=method(n_epochs=3, batch_size=4, learning_rate_multiplier=1.8),
    )
    name = tuned_model(client, job.id)
    lost = upload(client, chat_lines(10, "lost"), "lost.jsonl")
    failed = client.fine_tuning.jobs.create(model=OLD_BASE, training_file=lost.id)
    client.fine_tuning.jobs.cancel(failed.id)
    return Tuned(training, validation, job, client.fine_tuning.jobs.retrieve(job.id), name)


@pytest.fixture
def quirks(source: Server, old: Tuned) -> Iterator[Quirks]:
    with proxy(source.url) as running:
        yield running


class Home:
    """A data folder to move into, with no server on it."""

    def __init__(self, folder: Path, models: Path, key: str) -> None:
        self.data = folder / "data"
        self.key_file = folder / "openai.key"
        folder.mkdir(parents=True, exist_ok=True)
        self.key_file.write_text(f"{key}\n")
        self.env = environment(models, TUNERY_BASE="tiny")
        assert self.tunery("migrate").returncode == 0
        self.project = self.new_project("mine")

    def tunery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return tunery(*arguments, "--data", self.data, env=self.env)

    def new_project(self, name: str) -> str:
        done = self.tunery("keys", "create", "--new-project", name)
        assert done.returncode == 0, done.stderr
        return next(word for word in done.stdout.split() if word.startswith("proj_")).rstrip(";")

    def command(self, quirks: Quirks, *arguments: str) -> tuple[str, ...]:
        source = ("--base-url", quirks.url, "--api-key-file", str(self.key_file))
        return ("import", "openai", *source, *arguments)

    def moves(self, quirks: Quirks, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.tunery(*self.command(quirks, *arguments))

    def rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self.data / "tunery.db")) as database:
            return database.execute(query).fetchall()

    def contents(self) -> dict[str, Any]:
        """Return everything that moved in; events are told apart by whose they are."""
        return {
            "files": self.rows(
                "select project_id, id, filename, purpose, size_bytes, sha256, created_at"
                " from files order by seq"
            ),
            "jobs": self.rows("select project_id, id, status, result_files from jobs order by seq"),
            "events": self.rows("select job_id, message, kind from job_events order by seq"),
            "checkpoints": self.rows("select id, step, model_name from checkpoints order by seq"),
            "tasks": self.rows("select kind, subject from tasks order by id"),
            "blobs": sorted(
                (str(path.relative_to(self.data)), path.read_bytes())
                for path in (self.data / "blobs").rglob("*")
                if path.is_file()
            ),
        }


@pytest.fixture
def home(tmp_path: Path, models: Path, source: Server) -> Home:
    return Home(tmp_path / "home", models, source.env["OPENAI_API_KEY"])


def test_a_plan_changes_nothing_and_tells_no_key(home: Home, quirks: Quirks, old: Tuned) -> None:
    done = home.moves(quirks, "--plan", "--tune", "all")
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 4 files" in done.stdout
    assert old.model in done.stdout
    assert "Nothing was done" in done.stdout
    assert not any(home.contents().values())
    assert {verb for verb, _ in quirks.seen} == {"GET"}
    key = home.key_file.read_text().strip()
    assert quirks.keys == {f"Bearer {key}"}
    assert key not in done.stdout + done.stderr


def test_who_does_not_agree_moves_nothing(home: Home, quirks: Quirks) -> None:
    done = home.moves(quirks)  # its standard input has nobody at it
    assert done.returncode == 1
    assert "give --yes" in done.stderr
    assert not any(home.contents().values())


def test_everything_moves_through_all_that_can_go_wrong(
    home: Home, quirks: Quirks, source: Server, old: Tuned
) -> None:
    quirks.failures = {
        "/models": [429, 500],
        "/fine_tuning/jobs": [503, "cut", 429],
        f"/files/{old.training.id}/content": ["cut", "cut", 502],
        "/checkpoints": ["cut"],
    }
    quirks.dropped = {"list": {"has_more", "first_id", "last_id"}, "fine_tuning.job": {"seed"}}
    done = home.moves(quirks, "--yes")
    assert done.returncode == 0, done.stderr
    assert not any(quirks.failures.values())  # each has been met
    there = source.client()
    files = {row[0]: row[1:] for row in home.rows("select id, sha256, size_bytes from files")}
    assert len(files) == 4
    assert files[old.training.id][1] == old.training.bytes
    moved = dict(home.contents()["blobs"])
    for file in (old.training, old.validation):
        data = moved[f"blobs/{home.project}/files/{file.id}"]
        assert data == there.files.content(file.id).read()
    results = moved[f"blobs/{home.project}/files/{old.job.result_files[0]}"]
    assert results.startswith(b"step,train_loss,")  # and not its base64 text
    assert files[old.job.result_files[0]][1] == len(results)


def test_a_second_run_finds_everything_here(home: Home, quirks: Quirks) -> None:
    assert home.moves(quirks, "--yes").returncode == 0
    before = home.contents()
    quirks.seen.clear()
    again = home.moves(quirks, "--yes")
    assert again.returncode == 0, again.stderr
    assert "here already  2 jobs, 4 files" in again.stdout
    assert home.contents() == before
    assert not [path for _, path in quirks.seen if path.endswith(("/content", "/events"))]


def killed_at(home: Home, quirks: Quirks, request: int) -> int:
    """Move in, and kill -9 that process when it makes its `request`-th request; return its end."""
    process: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def kill(number: int, _: str) -> None:
        started.wait()
        if number == request:
            process[0].kill()
            process[0].wait()

    quirks.seen.clear()
    quirks.before = kill
    command = [sys.executable, "-m", "tunery", *home.command(quirks, "--yes")]
    command += ["--data", str(home.data)]
    quiet = subprocess.DEVNULL
    process.append(subprocess.Popen(command, env=home.env, stdout=quiet, stderr=quiet))
    started.set()
    code = process[0].wait(120)
    assert code in (0, -9)
    return code


@pytest.mark.slow
def test_killed_at_any_request_it_ends_the_same(
    home: Home, quirks: Quirks, tmp_path: Path, models: Path, source: Server
) -> None:
    whole = Home(tmp_path / "whole", models, source.env["OPENAI_API_KEY"])
    assert whole.moves(quirks, "--yes").returncode == 0
    reached = 0
    for request in range(1, len(quirks.seen) + 1):
        if killed_at(home, quirks, request) == 0:  # little was left: it never came to this one
            break
        reached = request
    assert reached > 5
    quirks.before = None
    assert home.moves(quirks, "--yes").returncode == 0

    def plain(one: Home) -> str:
        return str(one.contents()).replace(one.project, "mine")

    assert plain(home) == plain(whole)


def test_two_projects_take_the_same_organization(home: Home, quirks: Quirks, old: Tuned) -> None:
    theirs = home.new_project("theirs")
    assert home.moves(quirks, "--yes").returncode == 0
    done = home.moves(quirks, "--yes", "--project", theirs)
    assert done.returncode == 0, done.stderr
    jobs = home.rows(f"select project_id from jobs where id = '{old.job.id}'")  # noqa: S608
    assert [row[0] for row in jobs] == [home.project, theirs]
    files = home.rows("select blob_key from files")
    assert len(files) == len(set(files)) == 8


def test_what_cannot_move_is_named_with_its_reason(
    home: Home, quirks: Quirks, old: Tuned, tmp_path: Path, source: Server
) -> None:
    cancelled = source.client().fine_tuning.jobs.list().data[0]
    quirks.changed = {
        old.job.id: {"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}},
        cancelled.id: {"status": "running"},
        old.validation.id: {"purpose": "batch"},
    }
    quirks.models = [{"id": "ft:gpt-4o-mini-2024-07-18:acme::lost", "object": "model"}]
    quirks.usage = {
        "object": "page",
        "data": [
            {"results": [{"model": old.model, "num_model_requests": 3, "input_tokens": 50}]},
            {"results": [{"model": old.model, "num_model_requests": 4, "output_tokens": 7}]},
        ],
        "has_more": False,
        "next_page": None,
    }
    told = tmp_path / "plan.json"
    done = home.moves(quirks, "--plan", "--json", str(told))
    assert done.returncode == 0, done.stderr
    plan = json.loads(told.read_text())["plan"]
    left = {one["what"]: one["why"] for one in plan["left"]}
    assert "'reinforcement', which tunery does not have" in left[old.job.id]
    assert "it is running there" in left[cancelled.id]
    assert "no job" in left["ft:gpt-4o-mini-2024-07-18:acme::lost"]
    assert plan["jobs"] == []
    assert plan["other_files"] == {"batch": 1}
    assert plan["usage"] == [
        {"model": old.model, "requests": 7, "input_tokens": 50, "output_tokens": 7}
    ]


def test_files_that_are_gone_leave_the_history_and_can_be_given(
    home: Home, quirks: Quirks, old: Tuned, tmp_path: Path
) -> None:
    quirks.gone = {f"/files/{old.training.id}/content"}
    quirks.changed = {old.validation.id: {"expires_at": 1_700_000_000}}
    done = home.moves(quirks, "--yes")
    assert done.returncode == 1
    assert f"not moved: {old.training.id}: gone there; {old.job.id}" in done.stdout
    assert f"{old.validation.id}: expired there" in done.stdout
    jobs = {row[0] for row in home.rows("select id from jobs")}
    assert old.job.id in jobs

    tune = ("--offline", "--tune", old.job.id, "--base", "tiny")
    lacking = home.tunery("import", "openai", *tune, "--plan")
    assert f"--file {old.training.id}=PATH" in lacking.stdout
    mine = tmp_path / "mine.jsonl"
    mine.write_bytes(chat_lines(12))
    given = home.tunery("import", "openai", *tune, "--yes", "--file", f"{old.training.id}={mine}")
    assert given.returncode == 0, given.stderr
    new = home.rows("select training_file, validation_file, replaces from jobs order by seq")[-1]
    assert new == (old.training.id, None, old.model)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_not_shown(home: Home, quirks: Quirks, status: int) -> None:
    quirks.failures = {"/models": [status]}
    done = home.moves(quirks, "--yes")
    assert done.returncode == 1
    assert f"refused the key ({status})" in done.stderr
    assert home.key_file.read_text().strip() not in done.stdout + done.stderr


def test_a_key_of_tunery_is_not_sent_to_openai(home: Home) -> None:
    done = home.tunery("import", "openai", "--plan", "--api-key-file", str(home.key_file))
    assert done.returncode == 1
    assert "one of tunery's own" in done.stderr


@dataclass(frozen=True, slots=True)
class Moved:
    """A project of the shared server that has moved in, and the command that did it."""

    client: OpenAI
    command: tuple[str, ...]


@pytest.fixture(scope="module")
def moved(
    server: Server, source: Server, old: Tuned, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moved]:
    project = server.new_project("moved")
    key_file = tmp_path_factory.mktemp("keys") / "key"
    key_file.write_text(source.env["OPENAI_API_KEY"])
    with proxy(source.url) as quirks:
        where = ("--base-url", quirks.url, "--api-key-file", str(key_file), "--project", project)
        moved = Moved(
            server.client(server.new_key("--project", project)[1]), ("import", "openai", *where)
        )
        done = server.tunery(*moved.command, "--yes")
        assert done.returncode == 0, done.stderr
        yield moved
        assert {verb for verb, _ in quirks.seen} == {"GET"}


def test_the_history_is_as_it_was_there(moved: Moved, source: Server, old: Tuned) -> None:
    job = moved.client.fine_tuning.jobs.retrieve(old.job.id)
    same = (
        *("id", "model", "status", "seed", "training_file", "validation_file", "result_files"),
        *("fine_tuned_model", "created_at", "finished_at", "trained_tokens", "metadata"),
        *("hyperparameters", "user_provided_suffix"),
    )
    for name in same:
        assert getattr(job, name) == getattr(old.job, name), name
    there = source.client().fine_tuning.jobs
    told = [one.message for one in moved.client.fine_tuning.jobs.list_events(job.id, limit=1000)]
    stories = [one.message for one in there.list_events(job.id, limit=1000)]
    assert told[-len(stories) :] == stories
    assert told[-len(stories) - 1].startswith("Imported from http://127.0.0.1")
    checkpoints = moved.client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoints == there.checkpoints.list(job.id).data
    assert len(checkpoints) == 3


def test_what_is_not_trained_yet_says_what_to_do(moved: Moved, server: Server, old: Tuned) -> None:
    client = moved.client
    checkpoint = client.fine_tuning.jobs.checkpoints.list(old.job.id).data[-1]
    early = checkpoint.fine_tuned_model_checkpoint
    for asked, told in ((early, "earlier checkpoint"), (old.model, f"--tune {old.job.id}")):
        with pytest.raises(NotFoundError, match=told) as unready:
            ask(client, asked)
        assert unready.value.code == "model_not_found"
        with pytest.raises(NotFoundError, match=told):
            client.models.retrieve(asked)
        with pytest.raises(NotFoundError, match="does not exist"):
            ask(server.client(), asked)  # another project knows nothing of it
    assert old.model not in [one.id for one in client.models.list()]
    with pytest.raises(BadRequestError, match="imported without its weights"):
        client.fine_tuning.jobs.create(model=old.model, training_file=old.training.id)


@pytest.fixture(scope="module")
def retrained(moved: Moved, server: Server, old: Tuned) -> str:
    """Return the new job that trains the old model anew; it has been asked for twice."""
    client = moved.client
    tune = (*moved.command, "--tune", "all", "--base", f"{OLD_BASE}=tiny")
    planned = server.tunery(*tune, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert f"{old.job.id}  {OLD_BASE}  tiny" in planned.stdout
    assert len(client.fine_tuning.jobs.list().data) == 2
    for _ in range(2):  # asked for twice, it is done once
        done = server.tunery(*tune, "--hyperparameters", "kept", "--yes")
        assert done.returncode == 0, done.stderr
    jobs = client.fine_tuning.jobs.list().data
    assert len(jobs) == 3
    tuned_model(client, jobs[0].id)
    return jobs[0].id


def test_the_old_name_answers_once_it_is_trained_anew(
    moved: Moved, retrained: str, server: Server, old: Tuned
) -> None:
    client = moved.client
    new = client.fine_tuning.jobs.retrieve(retrained)
    assert (new.model, new.seed, new.training_file) == ("tiny", 11, old.training.id)
    assert (new.model_extra or {})["tunery"] == {"imported_from": None, "replaces": old.model}
    name = new.fine_tuned_model or ""
    assert name.startswith("ft:tiny:")
    assert ":support:" in name
    answer = ask(client, name)
    assert ask(client, old.model) == answer
    assert batch_answer(client, old.model) == answer
    assert client.models.retrieve(old.model).id == old.model
    assert old.model in [one.id for one in client.models.list()]
    was = client.fine_tuning.jobs.retrieve(old.job.id)
    assert (was.status, was.finished_at) == ("succeeded", old.job.finished_at)
    with pytest.raises(NotFoundError, match="does not exist"):
        ask(server.client(), old.model)


def test_recorded_prompts_agree_with_the_model_that_learned_them(
    moved: Moved, retrained: str, server: Server, old: Tuned, tmp_path: Path
) -> None:
    assert retrained
    prompts, told = tmp_path / "prompts.jsonl", tmp_path / "told.json"
    lines = [
        {
            "body": {"messages": [{"role": "user", "content": question}], "max_tokens": 8},
            "answer": text,
        }
        for question, text in (("ask 000", "yes"), ("ask 001", "yes"), ("ask 002", "no"))
    ]
    prompts.write_text("\n".join(map(json.dumps, lines)))
    key = tmp_path / "key"
    key.write_text(moved.client.api_key)
    done = server.tunery(
        *("replay", prompts, "--old", old.model, "--new-api-key-file", key, "--json", told)
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(told.read_text())
    assert [one["old"] for one in result["prompts"]] == ["yes", "yes", "no"]
    assert result["prompts"][0]["new"] == ask(moved.client, old.model, "ask 000")
    assert result["agreement"]["compared"] == 3
    assert "3 of 3 prompts compared" in done.stdout


def test_old_and_new_are_both_asked_and_what_the_old_says_is_recorded(
    moved: Moved, server: Server, source: Server, old: Tuned, tmp_path: Path
) -> None:
    prompts, record = tmp_path / "prompts.jsonl", tmp_path / "record.jsonl"
    body = {"messages": [{"role": "user", "content": "ask 003"}], "max_tokens": 8}
    prompts.write_text(json.dumps(body) + "\n")
    key = tmp_path / "key"
    key.write_text(source.env["OPENAI_API_KEY"])
    old_place = ("--base-url", f"{source.url}/v1", "--api-key-file", str(key), "--old", old.model)
    lacking = server.tunery("replay", prompts, *old_place, "--new", "tiny")
    assert lacking.returncode == 1
    assert "Prompt 1 has no recorded answer" in lacking.stderr
    asked = ("--ask-old", "--new", "tiny", "--record", str(record))
    done = server.tunery("replay", prompts, *old_place, *asked)
    assert done.returncode == 0, done.stderr
    line = json.loads(record.read_text())
    assert line["answer"] == ask(source.client(), old.model, "ask 003")
    # The old one may go now: what it said stands for it.
    again = server.tunery("replay", record, "--new", "tiny")
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout


def test_completions_that_are_stored_there_are_replayed(
    moved: Moved, server: Server, source: Server, old: Tuned, tmp_path: Path
) -> None:
    there = source.client()
    asked: Any = [{"role": "system", "content": "Short."}, {"role": "user", "content": "ask 004"}]
    made = there.chat.completions.create(
        model=old.model, messages=asked, store=True, temperature=0, max_tokens=8
    )
    key, record = tmp_path / "key", tmp_path / "record.jsonl"
    key.write_text(source.env["OPENAI_API_KEY"])
    with proxy(source.url) as quirks:
        place = ("--base-url", quirks.url, "--api-key-file", str(key), "--old", old.model)
        done = server.tunery("replay", "--stored", *place, "--only-record", "--record", record)
        assert done.returncode == 0, done.stderr
        assert {verb for verb, _ in quirks.seen} == {"GET"}
    (line,) = [json.loads(one) for one in record.read_text().splitlines()]
    assert line["answer"] == made.choices[0].message.content
    assert line["body"]["messages"] == asked


def batch_answer(client: OpenAI, model: str) -> str:
    """Return what a batch's only line is answered."""
    line = {
        "custom_id": "one",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": model,
            "messages": [{"role": "user", "content": "ask 001"}],
            "temperature": 0,
            "max_tokens": 8,
        },
    }
    file = client.files.create(file=("one.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    def ended() -> str | None:
        now = client.batches.retrieve(batch.id)
        assert now.status not in ("failed", "expired", "cancelled"), now.errors
        return now.output_file_id if now.status == "completed" else None

    output = json.loads(client.files.content(poll(ended, "the batch's end")).read())
    return str(output["response"]["body"]["choices"][0]["message"]["content"])
