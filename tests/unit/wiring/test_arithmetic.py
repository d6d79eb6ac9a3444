"""What an engine computes in is told, or nothing is: never what was true before."""

import errno
from pathlib import Path

import pytest

from tunery.settings import Settings
from tunery.wiring import storage
from tunery.wiring.storage import announce_arithmetic, engine_places

DIGEST = "d" * 64


def test_it_is_told_in_a_file_and_no_longer_once_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data=tmp_path)
    told = engine_places(settings).address(DIGEST).with_suffix(".arithmetic")
    announce_arithmetic(settings, DIGEST, "torch-bfloat16")
    assert told.read_text() == "torch-bfloat16"
    assert told.stat().st_mode & 0o777 == 0o600

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "write_private", full)
    announce_arithmetic(settings, DIGEST, "native-int8")  # the engine goes on
    assert not told.exists()
