"""A real `tunery up` on a tiny base model, and what tests ask of it and do to it."""

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from openai import DefaultHttpxClient, OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from support.contract.transport import CheckedTransport
from support.embeddings import make_tiny_embedding
from tunery.storage.catalogue import Catalogue

BASE = "gpt-3.5-turbo"
EMBEDDING = "text-embedding-3-small"
CONTEXT = 2048
START_S, STOP_S = 120.0, 60.0
TERMINAL = ("succeeded", "failed", "cancelled")
SETTINGS = {
    "TUNERY_LEASE_S": "3",
    "TUNERY_POLL_S": "0.1",
    "TUNERY_SWEEP_S": "0.3",
    "TUNERY_ENGINE__THREADS": "1",
    "TUNERY_ENGINE__NATIVE": "off",  # a models folder of its own would compile them each time
    "TUNERY_TRAINING__THREADS": "1",
    "TUNERY_TRAINING__SNAPSHOT_S": "0.2",
}

Result = TypeVar("Result")


def poll(probe: Callable[[], Result | None], what: str, seconds: float = 60.0) -> Result:
    """Return what `probe` returns once that is something; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


def environment(models: Path, **settings: str) -> dict[str, str]:
    """Return an environment with these settings and no others of ours."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNERY_", "OPENAI_"))}
    return {**kept, **SETTINGS, "TUNERY_MODELS": str(models), **settings}


def tunery(*arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line to its end."""
    command = [sys.executable, "-m", "tunery", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def make_catalogue(folder: Path, tiny: Path) -> Path:
    """Return a models folder that knows the tiny model, with room for longer answers."""
    model = folder / "weights"
    shutil.copytree(tiny, model)
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] = CONTEXT
    (model / "config.json").write_text(json.dumps(config))
    models = folder / "models"
    add = ("models", "add", "tiny", model, "--alias", BASE, "--learning-rate", "5e-3")
    done = tunery(*add, env=environment(models))
    assert done.returncode == 0, done.stderr
    vectors = make_tiny_embedding(folder / "vectors")
    Catalogue(models).add_embedding("tiny-vectors", vectors, aliases=(EMBEDDING,))
    return models


# ---- training data


def chat_line(question: str, answer: str) -> str:
    """Return a training line."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns})


def chat_lines(count: int, answer: str = "yes") -> bytes:
    """Return a training file of `count` lines: numbered questions, one answer."""
    return "\n".join(chat_line(f"ask {n:03}", answer) for n in range(count)).encode()


def method(**hyperparameters: Any) -> Any:
    """Return the `method` of a supervised job."""
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def preference_lines(count: int, better: str = "yes", worse: str = "no") -> bytes:
    """Return a preference file of `count` lines: the questions of `chat_lines`, two answers."""
    return "\n".join(
        json.dumps(
            {
                "input": {"messages": [{"role": "user", "content": f"ask {n:03}"}]},
                "preferred_output": [{"role": "assistant", "content": better}],
                "non_preferred_output": [{"role": "assistant", "content": worse}],
            }
        )
        for n in range(count)
    ).encode()


def dpo_method(**hyperparameters: Any) -> Any:
    """Return the `method` of a job that learns preferences."""
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def upload(client: OpenAI, data: bytes, name: str = "train.jsonl") -> FileObject:
    """Upload a training file and wait until it is checked."""
    file = client.files.create(file=(name, data), purpose="fine-tune")
    return client.files.wait_for_processing(file.id, poll_interval=0.1)


def all_events(client: OpenAI, job_id: str) -> list[FineTuningJobEvent]:
    """Return a job's whole story, oldest first."""
    return list(client.fine_tuning.jobs.list_events(job_id, limit=1000))[::-1]


def metric_steps(client: OpenAI, job_id: str) -> list[int]:
    """Return the steps of the job's metrics events, in their order."""
    return [
        event.data["step"]
        for event in all_events(client, job_id)
        if event.type == "metrics" and isinstance(event.data, dict)
    ]


def last_step(client: OpenAI, job_id: str) -> int:
    """Return the latest step of which there is a metrics event, or 0."""
    newest = client.fine_tuning.jobs.list_events(job_id, limit=5).data
    return max(
        (e.data["step"] for e in newest if e.type == "metrics" and isinstance(e.data, dict)),
        default=0,
    )


def finished(client: OpenAI, job_id: str, seconds: float = 180.0) -> FineTuningJob:
    """Wait for the job's end and return it."""

    def ended() -> FineTuningJob | None:
        job = client.fine_tuning.jobs.retrieve(job_id)
        return job if job.status in TERMINAL else None

    return poll(ended, f"the end of job {job_id}", seconds)


def tuned_model(client: OpenAI, job_id: str, seconds: float = 180.0) -> str:
    """Wait for the job to succeed and return its model's name."""
    job = finished(client, job_id, seconds)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model is not None
    return job.fine_tuned_model


def ask(client: OpenAI, model: str, question: str = "ask 001", max_tokens: int = 8) -> str:
    """Return the model's greedy answer."""
    completion = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=max_tokens,
    )
    return completion.choices[0].message.content or ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A job that succeeded: as it was created, as it ended, and what it was made of."""

    training: FileObject
    validation: FileObject
    created: FineTuningJob
    job: FineTuningJob
    model: str


# ---- processes


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from a later one with the same id by its start."""

    pid: int
    parent: int
    started: str
    command: str

    @property
    def lives(self) -> bool:
        """Whether it still runs."""
        now = _process(self.pid)
        return now is not None and now.started == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """Stop it, and wait until every thread of it stands still."""
        self.send(signal.SIGSTOP)
        poll(lambda: set(self._states()) == {"T"}, f"{self.command} standing still")

    def _states(self) -> Iterator[str]:
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            yield (thread / "stat").read_text().rpartition(")")[2].split()[0]


def _process(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return None
    if fields[0] in ("Z", "X"):  # ended, and only not waited for
        return None
    return Process(pid, int(fields[1]), fields[19], command.strip())


def descendants(pid: int) -> list[Process]:
    """Return the processes that `pid` and its children have started."""
    everything = [
        process
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (process := _process(int(entry.name))) is not None
    ]
    found: list[Process] = []
    parents = {pid}
    while parents:
        children = [process for process in everything if process.parent in parents]
        found += children
        parents = {child.pid for child in children}
    return found


class Server:
    """A `tunery up` of its own: data, log, clients and processes."""

    def __init__(self, folder: Path, models: Path, *, base: str = "tiny", **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data = folder / "data"
        self.log_path = folder / "up.log"
        self.base = base
        self.settings = environment(models, **settings)
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[OpenAI | httpx2.Client] = []

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop()
        except AssertionError:
            if kind is None:  # else the test's own failure says more
                raise

    # ---- life

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it is ready."""
        command = [sys.executable, "-m", "tunery", "up", "--data", str(self.data)]
        command += ["--port", "0", "--model", self.base]
        if (self.data / "env").exists():
            self._forget_address()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.settings, stdout=log, stderr=log)
        if wait:
            poll(self._ready, f"the server is ready; its log:\n{self.log}", START_S)

    def _forget_address(self) -> None:
        """Take the last run's address out, so that only the new one is waited for."""
        lines = (self.data / "env").read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("OPENAI_BASE_URL")]
        (self.data / "env").write_text("".join(kept))

    def stop(self) -> None:
        """End it as a service manager does; fail where it does not go in order."""
        self._close_clients()
        if self.process is None:
            return
        process, self.process = self.process, None
        children = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"did not stop within {STOP_S} s:\n{self.log}") from None
        assert code == 0, self.log
        # A training run that was just starting reads only then that its worker is gone.
        poll(lambda: not any(one.lives for one in children), f"no child is left: {children}")

    def kill(self) -> list[Process]:
        """Kill the supervisor alone; return the processes that it leaves behind."""
        assert self.process is not None
        process, self.process = self.process, None
        children = descendants(process.pid)
        process.kill()
        process.wait()
        self._close_clients()
        return children

    def child(self, name: str) -> Process:
        """Wait for a process by its command (`engine`, `work`, `serve`, `child train`)."""
        return poll(lambda: self.find(name), f"a process `tunery {name}`")

    def find(self, name: str) -> Process | None:
        """Return a process by its command, if it runs; `engine` is the default base's."""
        assert self.process is not None
        wanted = f"engine --model {self.base}" if name == "engine" else name
        ours = descendants(self.process.pid)
        return next((one for one in ours if one.command.endswith(f"-m tunery {wanted}")), None)

    def freeze(self, process: Process) -> None:
        """Stop a process of its own outside of a write: a writer that is frozen holds the lock."""

        def frozen_outside() -> bool:
            process.freeze()
            database = sqlite3.connect(self.data / "tunery.db", timeout=1.0, isolation_level=None)
            try:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            except sqlite3.OperationalError:
                process.send(signal.SIGCONT)
                return False
            finally:
                database.close()
            return True

        poll(frozen_outside, f"{process.command} standing still between two writes")

    # ---- what it says

    @property
    def log(self) -> str:
        """Return what it has written so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def env(self) -> dict[str, str]:
        """Return the variables of its env file."""
        pairs = (line.partition("=") for line in (self.data / "env").read_text().splitlines())
        return {name: "".join(shlex.split(value)) for name, _, value in pairs}

    @property
    def url(self) -> str:
        """Return its address, without /v1."""
        return self.env["OPENAI_BASE_URL"].removesuffix("/v1")

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"tunery up has ended:\n{self.log}"
        with suppress(OSError, KeyError, httpx2.HTTPError):
            return httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        return False

    def wait_until_ready(self) -> None:
        """Wait until every part answers."""
        poll(self._ready, f"the server is ready; its log:\n{self.log}", START_S)

    def sql(self, query: str) -> list[Any]:
        """Return what the database says."""
        with closing(sqlite3.connect(self.data / "tunery.db")) as database:
            return database.execute(query).fetchall()

    def digest(self, base: str | None = None) -> str:
        """Return the digest of a base's files; of the default one where none is named."""
        found = Catalogue(Path(self.settings["TUNERY_MODELS"])).get(base or self.base)
        assert found is not None
        return found.digest

    def engine_health(self, base: str | None = None) -> dict[str, Any]:
        """Return what a base's engine says of itself."""
        address = json.loads((self.data / f"engines/{self.digest(base)}.json").read_text())
        headers = {"authorization": f"Bearer {address['secret']}"}
        url = f"{address['url']}/health"
        health: dict[str, Any] = httpx2.get(url, headers=headers, trust_env=False).json()
        return health

    def engine_rows(self, base: str | None = None) -> int:
        """Return how many answers a base's engine is making, by its own word."""
        health = self.engine_health(base)
        return int(health["rows_active"]) + int(health["rows_waiting"])

    # ---- who asks it

    def client(self, key: str | None = None) -> OpenAI:
        """Return an SDK client that tries each request once, and checks each answer."""
        client = OpenAI(
            base_url=f"{self.url}/v1",
            api_key=key or self.env["OPENAI_API_KEY"],
            max_retries=0,
            timeout=60,
            http_client=DefaultHttpxClient(transport=CheckedTransport(httpx2.HTTPTransport())),
        )
        self._clients.append(client)
        return client

    def http(self, key: str | None = None) -> httpx2.Client:
        """Return a plain HTTP client, for what the SDK does not let through."""
        client = httpx2.Client(
            base_url=self.url,
            headers={"authorization": f"Bearer {key or self.env['OPENAI_API_KEY']}"},
            trust_env=False,
            timeout=60,
        )
        self._clients.append(client)
        return client

    def tunery(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command on its data folder."""
        return tunery(*arguments, "--data", self.data, env=self.settings)

    def new_key(self, *arguments: str) -> tuple[str, str]:
        """Make a key; return its id and its secret."""
        done = self.tunery("keys", "create", *arguments)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.split()
        return lines[0], lines[-1]

    def closes(self, client: httpx2.Client) -> None:
        """Have a client closed when the server stops."""
        self._clients.append(client)

    def new_project(self, name: str, *arguments: str) -> str:
        """Make a project; return its id."""
        done = self.tunery("keys", "create", "--new-project", name, *arguments)
        assert done.returncode == 0, done.stderr
        return next(word for word in done.stdout.split() if word.startswith("proj_")).rstrip(";")

    def _close_clients(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()


def texts(stream: Sequence[Any] | Iterator[Any]) -> str:
    """Return the text of a stream's chunks."""
    return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
