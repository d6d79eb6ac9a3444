"""Start a server, run the quickstart against it, stop the server: what `make demo` does."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tunery-data"
TUNERY = Path(sys.executable).with_name("tunery")
START_S = 180


def main() -> int:
    """Run the demo; return its exit code."""
    started = time.monotonic()
    subprocess.run([TUNERY, "models", "pull"], check=True)
    port = 8000 if free(8000) else 0
    server = subprocess.Popen(
        [TUNERY, "up", "--data", DATA, "--port", str(port)], env=quiet(os.environ)
    )
    try:
        environment = wait_until_ready(server)
        ready = time.monotonic()
        print(f"The server is ready, {ready - started:.0f} s after the start of the demo.")
        code = subprocess.run(
            [sys.executable, ROOT / "examples" / "quickstart.py"],
            env={**os.environ, **environment},
            check=False,
        ).returncode
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
    if code == 0:
        print(f"\nThe demo took {time.monotonic() - started:.0f} s. The server is stopped now.")
        print("Keep it running:   .venv/bin/tunery up")
        print("Point a client at it, keys and all:   set -a; . tunery-data/env; set +a")
        print(f"(OPENAI_BASE_URL is then {environment['OPENAI_BASE_URL']})")
    return code


def free(port: int) -> bool:
    """Return whether the port can be had on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def quiet(environment: "os._Environ[str]") -> dict[str, str]:
    """Return the environment with only the server's warnings shown."""
    return {"TUNERY_LOG_LEVEL": "warning", **environment}


def wait_until_ready(server: "subprocess.Popen[bytes]") -> dict[str, str]:
    """Return the client's environment once the server answers that it is ready."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        time.sleep(0.3)
        try:
            lines = (DATA / "env").read_text().splitlines()
            pairs = (line.partition("=") for line in lines)
            environment = {name: "".join(shlex.split(value)) for name, _, value in pairs}
            url = environment["OPENAI_BASE_URL"].removesuffix("/v1") + "/readyz"
            if httpx2.get(url, trust_env=False).status_code == 200:
                return environment
        except (OSError, KeyError, httpx2.HTTPError):
            continue
    sys.exit("demo: the server did not become ready; run `.venv/bin/tunery doctor`.")


if __name__ == "__main__":
    sys.exit(main())
