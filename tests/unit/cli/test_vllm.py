"""tunery engine with vLLM: started, announced, told to end, and never left behind."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.networks import until
from support.server import Server
from tunery.storage.catalogue import Catalogue

# Stands in for vLLM: says what it was given, and ends when it is told to.
PROGRAM = """#!{python}
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
names = ("VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
told = {{"pid": os.getpid(), "arguments": sys.argv[1:]}}
told["environment"] = [os.environ[name] for name in names]
with open({told!r} + ".new", "w") as handle:
    json.dump(told, handle)
os.rename({told!r} + ".new", {told!r})
while True:
    time.sleep(0.05)
"""


def _program(tiny_model: Path, folder: Path) -> Path:
    """Return what stands in for vLLM, and have a base in the catalogue."""
    Catalogue(folder / "models").add("tiny", tiny_model, aliases=(), learning_rate=1e-3)
    program = folder / "vllm"
    program.write_text(PROGRAM.format(python=sys.executable, told=str(folder / "told.json")))
    program.chmod(0o700)
    return program


@contextmanager
def _engine(tiny_model: Path, folder: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    program = _program(tiny_model, folder)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TUNERY_")},
        "TUNERY_DATA": str(folder / "data"),
        "TUNERY_MODELS": str(folder / "models"),
        "TUNERY_BASE": "tiny",
        "TUNERY_ENGINE__KIND": "vllm",
        "TUNERY_VLLM__COMMAND": str(program),
        **more,
    }
    command = [sys.executable, "-m", "tunery", "engine"]
    (folder / "data").mkdir()
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _told(folder: Path) -> dict[str, object]:
    path = folder / "told.json"
    until(path.exists)
    value: dict[str, object] = json.loads(path.read_text())
    return value


def _lives(pid: object) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists() and bool(Path(f"/proc/{pid}/cmdline").read_bytes())


def test_it_is_announced_with_the_key_it_asks_for(tiny_model: Path, tmp_path: Path) -> None:
    more = {"TUNERY_VLLM__ARGUMENTS": "--override 'a b'"}
    with _engine(tiny_model, tmp_path, **more) as process:
        told = _told(tmp_path)
        (address,) = (tmp_path / "data" / "engines").glob("*.json")
        place = json.loads(address.read_text())
        assert stat.S_IMODE(address.stat().st_mode) == 0o600
        arguments = told["arguments"]
        assert isinstance(arguments, list)
        assert arguments[-2:] == ["--override", "a b"]
        host, port = (arguments[arguments.index(name) + 1] for name in ("--host", "--port"))
        assert place["url"] == f"http://{host}:{port}" != "http://127.0.0.1:0"
        assert told["environment"] == [place["secret"], "1"]
        assert place["secret"] not in arguments
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        until(lambda: not _lives(told["pid"]))


@pytest.mark.parametrize("supervised", [False, True])
def test_it_ends_with_the_process_that_started_it(
    tiny_model: Path, tmp_path: Path, supervised: bool
) -> None:
    more = {"TUNERY_SUPERVISED": "1"} if supervised else {}
    with _engine(tiny_model, tmp_path, **more) as process:
        told = _told(tmp_path)
        assert _lives(told["pid"])
        if supervised:
            assert process.stdin is not None
            process.stdin.close()  # as when the supervisor is killed
            process.wait(20)
        else:
            process.kill()
        until(lambda: not _lives(told["pid"]))


def test_up_starts_one_again_that_was_killed_and_ends_it(tiny_model: Path, tmp_path: Path) -> None:
    program = _program(tiny_model, tmp_path)
    vllm = {"TUNERY_ENGINE__KIND": "vllm", "TUNERY_VLLM__COMMAND": str(program)}
    up = Server(tmp_path, tmp_path / "models", **vllm)
    up.start(wait=False)
    try:
        killed = _told(tmp_path)["pid"]
        assert isinstance(killed, int)
        os.kill(killed, signal.SIGKILL)
        until(lambda: _told(tmp_path)["pid"] != killed)
    finally:
        up.stop()
    assert not _lives(_told(tmp_path)["pid"])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"TUNERY_VLLM__COMMAND": "/nowhere/vllm"}, b"TUNERY_VLLM__COMMAND"),
        ({"TUNERY_VLLM__URL": "http://gpu:8000"}, b"unset TUNERY_VLLM__URL"),
    ],
)
def test_what_cannot_be_started_is_said_in_a_line(
    tiny_model: Path, tmp_path: Path, more: dict[str, str], says: bytes
) -> None:
    with _engine(tiny_model, tmp_path, **more) as process:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert says in errors
        assert errors.count(b"\n") == 1
