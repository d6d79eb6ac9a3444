"""Run a command beside a throw-away PostgreSQL: `python3 scripts/postgres.py -- COMMAND...`.

The command finds the server's address in TUNERY_TEST_POSTGRES; when it ends, the server is stopped
and removed, and its exit code is this one's. Standard library only.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

VARIABLE = "TUNERY_TEST_POSTGRES"
SYSTEM_USER = "postgres"  # the server refuses to run as root
START_TRIES = 5  # another process may take the port first
INITDB = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
SETTINGS = ("fsync=off", "max_connections=200")


def find_programs() -> Path:
    """Return the folder of the newest server's programs."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0,
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        sys.exit("postgres: no PostgreSQL server found; try `apt-get install postgresql`.")
    return Path(on_path).resolve().parent


def as_server(command: list[str]) -> list[str]:
    """Return `command` as the user that may run the server."""
    return ["runuser", "-u", SYSTEM_USER, "--", *command] if os.geteuid() == 0 else command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(programs: Path, data: Path, sockets: Path) -> int:
    """Start the server and return its port."""
    log = data / "server.log"
    control = str(programs / "pg_ctl")
    for _ in range(START_TRIES):
        port = free_port()
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -k {sockets}"
        options += "".join(f" -c {setting}" for setting in SETTINGS)
        started = subprocess.run(
            as_server(
                [control, "start", "-w", "-s", "-D", str(data), "-l", str(log), "-o", options]
            ),
            cwd=sockets,
            check=False,
        )
        if started.returncode == 0:
            return port
    sys.exit(f"postgres: the server did not start:\n{log.read_text() if log.exists() else ''}")


@contextmanager
def cluster() -> Iterator[str]:
    """Start a server in a folder of its own and yield its URL; stop and remove it after."""
    programs = find_programs()
    folder = Path(tempfile.mkdtemp(prefix="tunery-pg-"))
    data = folder / "data"
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, SYSTEM_USER)
        subprocess.run(
            as_server([str(programs / "initdb"), "-D", str(data), *INITDB]),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        port = start(programs, data, folder)
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        if (data / "postmaster.pid").exists():
            stop = [str(programs / "pg_ctl"), "stop", "-w", "-s", "-m", "immediate", "-D"]
            subprocess.run(as_server([*stop, str(data)]), cwd=folder, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def end_at(number: int, frame: FrameType | None) -> None:
    """Turn a signal into an exit, so that the server is removed."""
    sys.exit(128 + number)


def main() -> int:
    """Run the command and return its exit code."""
    command = sys.argv[1:]
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        sys.exit("usage: python3 scripts/postgres.py -- COMMAND...")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end_at)
    with cluster() as url:
        child = subprocess.Popen(command, env={**os.environ, VARIABLE: url})
        try:
            code = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
