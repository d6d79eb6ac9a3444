"""What the API adds to an answer, and how fast lists are on a full database.

A stub stands where the engine stands and takes 100 ms an answer. The same clients ask the stub
alone, the whole API over it, and the least that such a service can be, in turns, so that all see
the same machine. That least is a FastAPI application that passes each body on and commits one row
to SQLite, by its driver, before it answers: it knows no key, no model and no prompt. Then a
database with 10,000 jobs and 1,000,000 events is listed through the API.

    .venv/bin/python benchmarks/gateway.py [--quick] [--json PATH]

On are: the key check, the model's look-up, rendering and token count, the ledger (a commit that
is on disk before the answer is sent). Rate limits do not exist yet.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunery.domain.jobs import Job, JobStatus, LogEntry, RequestedHyperparameters
from tunery.domain.tenants import Tenant
from tunery.settings import DEFAULT_BASE, Settings
from tunery.storage.tables import job_events
from tunery.wiring.storage import engine_places, open_database, open_directory, write_private

STUB_S = 0.1
CLIENTS = (1, 8, 32)
JOBS, EVENTS = 10_000, 1_000_000
QUESTION = [{"role": "user", "content": "How do I reset my password? " * 10}]


# ---- the stub


def run_stub(file: Path) -> None:
    """Serve what the engine serves, after a pause that the request names in its `seed`."""
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse

    app = FastAPI(openapi_url=None)

    @app.post("/generate")
    async def generate(request: Request) -> StreamingResponse:
        body = json.loads(await request.body())

        async def lines() -> AsyncIterator[bytes]:
            await asyncio.sleep(0 if body["seed"] == 0 else STUB_S)
            made = {"text": "Yes.", "completion_tokens": 2, "finish_reason": "stop"}
            yield json.dumps(made).encode() + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        rows = {"adapters_resident": 0, "rows_active": 0, "rows_waiting": 0}
        return {"base_digest": "", **rows}

    from tunery.cli.processes import listen

    sock = listen("127.0.0.1", 0)
    address = {"url": f"http://127.0.0.1:{sock.getsockname()[1]}", "secret": "stub"}
    write_private(file, json.dumps(address))
    config = uvicorn.Config(app, log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[sock])


def run_least(stub: str, port: int, folder: Path) -> None:
    """Pass each body on to the stub, and commit a row before the answer is sent."""
    import aiohttp
    import uvicorn
    from anyio.to_thread import run_sync
    from fastapi import FastAPI, Request
    from fastapi.responses import Response

    from tunery.cli.processes import listen

    app = FastAPI(openapi_url=None)
    database = sqlite3.connect(folder / "least.db", isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE lines (number INTEGER PRIMARY KEY, text TEXT)")
    writer = threading.Lock()
    sessions: list[aiohttp.ClientSession] = []

    def commit() -> None:
        with writer:
            database.execute("INSERT INTO lines (text) VALUES ('used')")

    @app.post("/generate")
    async def generate(request: Request) -> Response:
        if not sessions:
            sessions.append(aiohttp.ClientSession())
        async with sessions[0].post(f"{stub}/generate", data=await request.body()) as answer:
            content = await answer.read()
        await run_sync(commit)
        return Response(content, media_type="application/json")

    config = uvicorn.Config(app, log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listen("127.0.0.1", port)])


# ---- the clients


@dataclass
class Connection:
    """One kept-alive connection, by hand: a client library would cost more than the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str

    @classmethod
    async def open(cls, url: str) -> "Connection":
        host = url.removeprefix("http://")
        name, _, port = host.partition(":")
        return cls(*await asyncio.open_connection(name, int(port)), host)

    async def ask(self, method: str, path: str, key: str, body: bytes = b"") -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(f"gateway: {method} {path}: {answer[:300]!r}")
        headers = answer.lower()
        if b"content-length:" in headers:
            length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
            return await self.reader.readexactly(length)
        content = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            content += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return content

    def close(self) -> None:
        self.writer.close()


Ask = Callable[[Connection], Awaitable[bytes]]


async def measure(url: str, ask: Ask, clients: int, requests: int) -> tuple[list[float], float]:
    """Return each request's seconds, and the seconds that all of them took."""
    connections = [await Connection.open(url) for _ in range(clients)]
    took: list[float] = []

    async def client(connection: Connection) -> None:
        for number in range(requests // clients + 2):
            started = time.perf_counter()
            await ask(connection)
            if number >= 2:  # the first ones open files and fill caches
                took.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*map(client, connections))
    spent = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return took, spent


def percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return p50, p95, p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[94] * 1000, cuts[98] * 1000


# ---- the server


def start(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *command], env=env, stderr=subprocess.DEVNULL)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"gateway: {what} did not come up within 60 s")
        time.sleep(0.05)


def fill(settings: Settings, jobs: int, events: int) -> tuple[str, str]:
    """Put jobs and events into the database; return the ids of a job and of its newest event."""
    database = open_database(settings)
    base = open_directory(settings).base()
    with database.read() as tx:
        tenant = tx.accounts.first_tenant()
    assert tenant is not None
    each, job_id, event_id = events // jobs, "", ""
    for start_at in range(0, jobs, 500):
        with database.write() as tx:
            for number in range(start_at, min(start_at + 500, jobs)):
                job_id = f"ftjob-{number:024}"
                tx.jobs(tenant).add(a_job(job_id, base.name, base.digest))
        with database.engine.execution_options(tunery_writes=True).begin() as connection:
            rows = []
            for number in range(start_at, min(start_at + 500, jobs)):
                for step in range(each):
                    event_id = f"ftevent-{number:012}{step:012}"
                    rows.append(an_event(tenant, f"ftjob-{number:024}", event_id, step))
            connection.execute(job_events.insert(), rows)
    database.close()
    return job_id, event_id


def a_job(job_id: str, base: str, digest: str) -> Job:
    return Job(
        id=job_id,
        model="gpt-3.5-turbo",
        base=base,
        base_digest=digest,
        parent_model=None,
        training_file="file-1",
        validation_file=None,
        suffix=None,
        seed=1,
        requested=RequestedHyperparameters(),
        resolved=None,
        metadata={"team": "blue"},
        status=JobStatus.SUCCEEDED,
        error=None,
        trained_tokens=1000,
        fine_tuned_model=None,
        result_files=(),
        created_at=1_700_000_000,
        started_at=1_700_000_001,
        finished_at=1_700_000_002,
    )


def an_event(tenant: Tenant, job_id: str, event_id: str, step: int) -> dict[str, Any]:
    entry = LogEntry(event_id, 1_700_000_000, "info", "metrics", f"Step {step}/100", {"step": step})
    return {
        "project_id": tenant.project_id,
        "id": entry.id,
        "job_id": job_id,
        "created_at": entry.created_at,
        "level": entry.level,
        "kind": entry.kind,
        "message": entry.message,
        "data": entry.data,
    }


# ---- the rows


async def answers(stub: str, least: str, api: str, key: str, requests: int) -> list[dict[str, Any]]:
    """Return what the API adds, at each number of clients, and its requests a second."""
    rows: list[dict[str, Any]] = []
    prompt = list(range(100, 200))
    alone: dict[str, Any] = {
        "prompt_ids": prompt,
        "base_digest": "",
        "adapter": None,
        "max_tokens": 8,
    }
    alone |= {"temperature": 1.0, "top_p": 1.0, "stop": [], "seed": 1}
    chat: dict[str, Any] = {"model": DEFAULT_BASE, "messages": QUESTION, "max_tokens": 8}

    def of_stub(seed: int) -> Ask:
        body = json.dumps(alone | {"seed": seed}).encode()
        return lambda one: one.ask("POST", "/generate", "stub", body)

    def of_api(seed: int) -> Ask:
        body = json.dumps(chat | {"seed": seed}).encode()
        return lambda one: one.ask("POST", "/v1/chat/completions", key, body)

    for clients in CLIENTS:
        took: dict[str, list[float]] = {"stub": [], "least": [], "api": []}
        for _ in range(4):  # in turns, so that all see the same machine
            count = max(clients * 4, requests * clients // 32)
            took["stub"] += (await measure(stub, of_stub(1), clients, count))[0]
            took["least"] += (await measure(least, of_stub(1), clients, count))[0]
            took["api"] += (await measure(api, of_api(1), clients, count))[0]
        row: dict[str, Any] = {"name": f"chat, {clients} clients", "requests": len(took["api"])}
        for number, name in enumerate(("p50", "p95", "p99")):
            ms = {kind: percentiles(values)[number] for kind, values in took.items()}
            row |= {f"{kind}_{name}_ms": value for kind, value in ms.items()}
            row[f"least_added_{name}_ms"] = ms["least"] - ms["stub"]
            row[f"added_{name}_ms"] = ms["api"] - ms["stub"]
        rows.append(row)
    for name, url, ask in (("the least", least, of_stub(0)), ("the API", api, of_api(0))):
        done, spent = await measure(url, ask, 32, requests * 4)
        rows.append({"name": f"chat, saturated, {name}", "requests_per_s": len(done) / spent})
    return rows


async def lists(
    api: str, key: str, job_id: str, event_id: str, rounds: int
) -> list[dict[str, Any]]:
    """Return how long lists and look-ups take on the full database."""
    rows = []
    jobs = "/v1/fine_tuning/jobs"
    middle = f"ftjob-{int(job_id[-24:]) // 2:024}"
    for name, path in (
        ("list jobs", jobs),
        ("list jobs, 100 from the middle", f"{jobs}?limit=100&after={middle}"),
        ("list jobs, metadata that all have", f"{jobs}?metadata[team]=blue"),
        ("list jobs, metadata that none has", f"{jobs}?metadata[team]=red"),
        ("retrieve a job", f"{jobs}/{middle}"),
        ("list events", f"{jobs}/{job_id}/events?limit=100"),
        ("list events, after one", f"{jobs}/{job_id}/events?limit=20&after={event_id}"),
        ("list files", "/v1/files?limit=100"),
        ("list models", "/v1/models"),
    ):

        async def ask(one: Connection, path: str = path) -> bytes:
            return await one.ask("GET", path, key)

        took, _ = await measure(api, ask, 1, rounds)
        p50, p95, p99 = percentiles(took)
        rows.append({"name": name, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'':44}{'p50':>9}{'p95':>9}{'p99':>9}")
    for row in rows:
        if "requests_per_s" in row:
            print(f"{row['name']:44}{row['requests_per_s']:9.0f} requests/s")
        elif "added_p50_ms" in row:
            for kind, what in (
                ("stub", "the stub"),
                ("least_added", "added at the least"),
                ("added", "added by the API"),
            ):
                cells = "".join(f"{row[f'{kind}_{p}_ms']:9.2f}" for p in ("p50", "p95", "p99"))
                print(f"{row['name'] + ', ' + what + ', ms':44}{cells}")
        else:
            cells = "".join(f"{row[f'{p}_ms']:9.2f}" for p in ("p50", "p95", "p99"))
            print(f"{row['name'] + ', ms':44}{cells}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer requests, a smaller database")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--stub", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--least", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stub is not None:
        run_stub(options.stub)
        return
    if options.least is not None:
        stub_url, port_text, target = options.least
        run_least(stub_url, int(port_text), Path(target))
        return
    jobs, events = (1_000, 20_000) if options.quick else (JOBS, EVENTS)
    requests, rounds = (320, 100) if options.quick else (1_600, 400)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder))
        env = {**os.environ, "TUNERY_DATA": folder, "TUNERY_LOG_LEVEL": "error"}
        made = subprocess.run(
            [sys.executable, "-m", "tunery", "migrate"], env=env, capture_output=True, check=False
        )
        if made.returncode:
            sys.exit(f"gateway: {made.stderr.decode()}")
        key, port = account(settings), 20_000 + secrets.randbelow(20_000)
        job_id, event_id = fill(settings, jobs, events)
        file = engine_places(settings).address(open_directory(settings).base().digest)
        file.parent.mkdir()
        processes = [
            start([__file__, "--stub", str(file)], env),
            start(["-m", "tunery", "serve", "--port", str(port)], env),
        ]
        try:
            api = f"http://127.0.0.1:{port}"
            wait_for(file.exists, "the stub")
            stub = json.loads(file.read_text())["url"]
            least = f"http://127.0.0.1:{port + 1}"
            processes.append(start([__file__, "--least", stub, str(port + 1), folder], env))
            wait_for(lambda: answers_at(port) and answers_at(port + 1), "the API")
            rows = asyncio.run(answers(stub, least, api, key, requests))
            rows += asyncio.run(lists(api, key, job_id, event_id, rounds))
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
                process.wait()
    show(rows)
    at_8 = next(row for row in rows if row["name"] == "chat, 8 clients")
    slowest = max(row["p95_ms"] for row in rows if "p95_ms" in row)
    ratios = {
        "added_p50_ms_at_8": at_8["added_p50_ms"],
        "added_p99_ms_at_8": at_8["added_p99_ms"],
        "least_added_p50_ms_at_8": at_8["least_added_p50_ms"],
        "least_added_p99_ms_at_8": at_8["least_added_p99_ms"],
        "slowest_list_p95_ms": slowest,
    }
    if options.json:
        machine = {"cpus": os.cpu_count(), "machine": platform.processor() or platform.machine()}
        value = {"machine": machine, "rows": rows, "ratios": ratios}
        options.json.write_text(json.dumps(value, indent=2))


def account(settings: Settings) -> str:
    """Make the first account and return its key."""
    from tunery.services.accounts import create_first_account
    from tunery.wiring.storage import load_pepper

    database = open_database(settings)
    first = create_first_account(database, load_pepper(settings), "Bench")
    database.close()
    assert first is not None
    return first.project_key.secret


def answers_at(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
