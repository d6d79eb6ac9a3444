"""`tunery import openai`: from a second tunery that behaves as OpenAI's service, over real HTTP."""

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError, OpenAI

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


@pytest.mark.slow
def test_killed_at_any_request_it_ends_the_same(
    home: Home, quirks: Quirks, tmp_path: Path, models: Path, source: Server
) -> None:
    whole = Home(tmp_path / "whole", models, source.env["OPENAI_API_KEY"])
    assert whole.moves(quirks, "--yes").returncode == 0
    reached = 0
    for request in range(1, len(quirks.seen) + 1):
        quirks.seen.clear()
        process: list[subprocess.Popen[bytes]] = []
        started = threading.Event()

        def kill(number: int, _: str, at: int = request) -> None:
            started.wait()
            if number == at:
                process[0].kill()
                process[0].wait()

        quirks.before = kill
        command = [sys.executable, "-m", "tunery", *home.command(quirks, "--yes")]
        process.append(
            subprocess.Popen(
                [*command, "--data", str(home.data)],
                env=home.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        started.set()
        code = process[0].wait(60)
        if code == 0:  # little was left to do: it did not come to this request
            break
        assert code == -9
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


def test_the_old_name_answers_once_it_is_trained_anew(
    server: Server, quirks: Quirks, old: Tuned, tmp_path: Path, source: Server
) -> None:
    project = server.new_project("moved")
    key = server.new_key("--project", project)[1]
    client = server.client(key)
    key_file = tmp_path / "key"
    key_file.write_text(source.env["OPENAI_API_KEY"])
    command = ("import", "openai", "--base-url", quirks.url, "--api-key-file", str(key_file))
    done = server.tunery(*command, "--project", project, "--yes")
    assert done.returncode == 0, done.stderr

    # The history, through the SDK: as it was there.
    job = client.fine_tuning.jobs.retrieve(old.job.id)
    same = [
        *("id", "model", "status", "seed", "training_file", "validation_file", "result_files"),
        *("fine_tuned_model", "created_at", "finished_at", "trained_tokens", "metadata"),
        *("hyperparameters", "user_provided_suffix"),
    ]
    for name in same:
        assert getattr(job, name) == getattr(old.job, name), name
    there = source.client()
    told = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=1000)]
    stories = there.fine_tuning.jobs.list_events(job.id, limit=1000)
    assert told[1:] == [event.message for event in stories]
    assert told[0].startswith(f"Imported from {quirks.url}")
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert checkpoints == there.fine_tuning.jobs.checkpoints.list(job.id).data

    # It does not answer yet, and says what to do.
    for asked in (old.model, checkpoints[-1].fine_tuned_model_checkpoint):
        with pytest.raises(NotFoundError) as unready:
            ask(client, asked)
        assert unready.value.code == "model_not_found"
        assert "imported" in unready.value.message
        with pytest.raises(NotFoundError, match="imported"):
            client.models.retrieve(asked)
    with pytest.raises(NotFoundError) as unready:
        ask(client, old.model)
    assert f"tunery import openai --tune {job.id}" in unready.value.message
    with pytest.raises(NotFoundError, match="does not exist"):
        ask(server.client(), old.model)  # another project knows nothing of it

    # Trained anew, it answers to its old name, and to a new one.
    tune = (*command, "--project", project, "--tune", "all", "--base", f"{OLD_BASE}=tiny")
    planned = server.tunery(*tune, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "$" in planned.stdout
    for _ in range(2):  # asked for twice, it is done once
        done = server.tunery(*tune, "--hyperparameters", "kept", "--yes")
        assert done.returncode == 0, done.stderr
    jobs = client.fine_tuning.jobs.list().data
    assert len(jobs) == 3
    new = jobs[0]
    assert (new.model, new.seed, new.training_file) == ("tiny", 11, old.training.id)
    name = tuned_model(client, new.id)
    assert name.startswith("ft:tiny:") and ":support:" in name
    assert ask(client, old.model) == ask(client, name)
    model = client.models.retrieve(old.model)
    assert model.id == old.model
    assert old.model in [one.id for one in client.models.list()]
    assert client.fine_tuning.jobs.retrieve(old.job.id).status == "succeeded"
    assert client.fine_tuning.jobs.retrieve(new.id).model_extra is not None
    origin = client.fine_tuning.jobs.retrieve(new.id).model_extra or {}
    assert origin["tunery"] == {"imported_from": None, "replaces": old.model}
    with pytest.raises(NotFoundError, match="does not exist"):
        ask(server.client(), old.model)
    with pytest.raises(NotFoundError, match="earlier checkpoint"):
        ask(client, checkpoints[-1].fine_tuned_model_checkpoint)
    assert batch_answer(client, old.model) == ask(client, name)
    assert {verb for verb, _ in quirks.seen} == {"GET"}


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
