"""Adapters' files in a folder that several processes share."""

import json
import os
from pathlib import Path

import pytest

from support.children import line_of, python
from support.networks import random_adapter, store
from tunery.domain.errors import StorageFull, TuneryError, Unavailable
from tunery.domain.jobs import Adapter
from tunery.inference.vllm.folder import AdapterFolder, Lock, file_name
from tunery.storage.blobs import LocalBlobStore

HOLDER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(descriptor, fcntl.LOCK_SH)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


@pytest.fixture
def folder(tmp_path: Path, blobs: LocalBlobStore) -> AdapterFolder:
    return AdapterFolder(tmp_path / "adapters", blobs, 2)


def _adapter(tiny_model: Path, blobs: LocalBlobStore, key: str) -> Adapter:
    return store(blobs, key, random_adapter(tiny_model, 1))


def _held(folder: AdapterFolder, adapter: Adapter) -> Lock:
    lock = folder.hold(adapter)
    assert lock is not None
    return lock


def test_files_come_whole_under_a_name_that_is_one_folder(
    tiny_model: Path, blobs: LocalBlobStore, folder: AdapterFolder
) -> None:
    adapter = _adapter(tiny_model, blobs, "proj_1/jobs/a-b")
    _held(folder, adapter).release()
    name = file_name(adapter)
    assert name == f"proj_1%2Fjobs%2Fa-b@{adapter.digest}"
    path = folder.path(name)
    assert os.listdir(path.parent) == [name]
    assert sorted(os.listdir(path)) == ["adapter_config.json", "adapter_model.safetensors"]
    for file in os.listdir(path):
        assert (path / file).read_bytes() == blobs.read(f"{adapter.key}/{file}")
    assert json.loads((path / "adapter_config.json").read_bytes())["r"] == 4
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_files_without_the_digest_and_missing_ones_leave_nothing(
    tiny_model: Path, blobs: LocalBlobStore, folder: AdapterFolder
) -> None:
    adapter = _adapter(tiny_model, blobs, "p/a")
    with pytest.raises(TuneryError, match="digest"):
        folder.hold(Adapter(adapter.key, "0" * 64))
    with pytest.raises(Unavailable, match="missing"):
        folder.hold(Adapter("p/b", adapter.digest))
    assert not folder.path("x").parent.exists()


def test_a_folder_that_cannot_be_written_is_named(
    tiny_model: Path, blobs: LocalBlobStore, tmp_path: Path
) -> None:
    place = tmp_path / "taken"
    place.write_text("a file")
    with pytest.raises(StorageFull, match=str(place)):
        AdapterFolder(place, blobs, 2).hold(_adapter(tiny_model, blobs, "p/a"))


def test_what_is_in_use_cannot_be_claimed_and_what_is_claimed_not_used(
    tiny_model: Path, blobs: LocalBlobStore, folder: AdapterFolder
) -> None:
    adapter = _adapter(tiny_model, blobs, "p/a")
    name = file_name(adapter)
    assert folder.claim(name) is None  # not there
    one, other = _held(folder, adapter), _held(folder, adapter)
    one.release()
    assert folder.claim(name) is None
    other.release()
    claimed = folder.claim(name)
    assert claimed is not None
    assert folder.hold(adapter) is None
    folder.remove(name)
    assert not folder.has(name)
    again = _held(folder, adapter)  # new files: the lock on the old ones is in nobody's way
    claimed.release()
    assert folder.claim(name) is None
    again.release()


def test_a_killed_process_holds_nothing(
    tiny_model: Path, blobs: LocalBlobStore, folder: AdapterFolder
) -> None:
    adapter = _adapter(tiny_model, blobs, "p/a")
    name = file_name(adapter)
    _held(folder, adapter).release()
    with python(HOLDER, str(folder.path(name) / "adapter_config.json")) as child:
        assert line_of(child) == "held"
        assert folder.claim(name) is None
        child.kill()
        child.wait()
        claimed = folder.claim(name)
        assert claimed is not None
        claimed.release()


def test_the_longest_unused_are_the_surplus(
    tiny_model: Path, blobs: LocalBlobStore, folder: AdapterFolder
) -> None:
    adapters = [_adapter(tiny_model, blobs, f"p/{number}") for number in range(3)]
    names = [file_name(adapter) for adapter in adapters]
    for adapter in adapters[:2]:
        _held(folder, adapter).release()
    assert folder.surplus() == (0, names[:2])
    for adapter in (adapters[2], adapters[0]):
        _held(folder, adapter).release()
    assert folder.surplus() == (1, [names[1], names[2], names[0]])


def test_what_a_killed_process_left_half_made_is_swept_once_it_is_old(
    tiny_model: Path, blobs: LocalBlobStore, folder: AdapterFolder
) -> None:
    folder.sweep()  # no folder yet
    adapter = _adapter(tiny_model, blobs, "p/a")
    _held(folder, adapter).release()
    path = folder.path(file_name(adapter))
    old, new = path.with_name(".old"), path.with_name(".new")
    for half in (old, new):
        half.mkdir()
        (half / "adapter_model.safetensors").write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(path, (0, 0))
    folder.sweep()
    assert (old.exists(), new.exists(), path.exists()) == (False, True, True)
    assert folder.surplus() == (0, [path.name])
