"""What is kept running: a program that cannot be started takes nobody with it."""

import sys
from pathlib import Path

import pytest

from tunery.cli.kept import Kept


def test_a_program_that_cannot_be_started_is_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("tunery.cli.kept.time.monotonic", lambda: now)
    program = tmp_path / "program"
    kept = Kept("worker", [str(program)], {})
    kept.keep()
    assert not kept.lives
    told = " ".join(capfd.readouterr().err.split())
    assert "The worker cannot be started (No such file or directory)" in told
    assert "again in 0.5 s" in told
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.stdin.read()\n")
    program.chmod(0o700)
    kept.keep()  # too early
    assert not kept.lives
    now += 0.6
    kept.keep()
    assert kept.lives
    kept.stop(10)
