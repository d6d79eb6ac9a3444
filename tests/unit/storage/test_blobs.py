"""Blobs in a local folder: whole or not at all, and never outside it."""

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunery.domain.errors import InvalidRequest, NotFound, StorageFull, Unavailable
from tunery.storage.blobs import CHUNK, LocalBlobStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(root: Path) -> LocalBlobStore:
    return LocalBlobStore(root)


def files(root: Path) -> set[str]:
    """Return every file below `root`."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_committed_blob_is_read_back_whole_and_in_chunks(
    store: LocalBlobStore, root: Path
) -> None:
    data = os.urandom(2 * CHUNK + 17)
    with store.writer("p/files/a") as writer:
        writer.write(data[:5])
        writer.write(b"")
        writer.write(data[5:])
        assert "blobs/p/files/a" not in files(root)  # nowhere to be seen until commit
        writer.commit()
    assert store.read("p/files/a") == data
    assert [len(chunk) for chunk in store.stream("p/files/a")] == [CHUNK, CHUNK, 17]
    assert b"".join(store.stream("p/files/a")) == data
    assert files(root) == {"blobs/p/files/a"}


def test_an_empty_blob_is_a_blob(store: LocalBlobStore) -> None:
    store.put("p/empty", b"")
    assert store.read("p/empty") == b""
    assert list(store.stream("p/empty")) == []


def test_without_commit_nothing_stays(store: LocalBlobStore, root: Path) -> None:
    with store.writer("p/a") as writer:
        writer.write(b"x" * 100_000)
    assert files(root) == set()
    with pytest.raises(NotFound):
        store.read("p/a")


def test_an_error_while_writing_leaves_the_older_blob(store: LocalBlobStore, root: Path) -> None:
    store.put("p/a", b"old")

    def interrupted() -> None:
        with store.writer("p/a") as writer:
            writer.write(b"new")
            raise RuntimeError("client went away")

    with pytest.raises(RuntimeError, match="client went away"):
        interrupted()
    assert store.read("p/a") == b"old"
    assert files(root) == {"blobs/p/a"}


def test_the_last_commit_of_two_writers_stands_whole(store: LocalBlobStore, root: Path) -> None:
    with store.writer("p/a") as first, store.writer("p/a") as second:
        first.write(b"first " * 10)
        second.write(b"second")
        second.commit()
        assert store.read("p/a") == b"second"
        first.commit()
    assert store.read("p/a") == b"first " * 10
    assert files(root) == {"blobs/p/a"}


KEYS = ["", "/", "/etc/passwd", "..", "../x", "p/../../x", "p/..", "p/./a", "p//a", "p/", "p\\a"]


@pytest.mark.parametrize("key", [*KEYS, "a\0b"])
def test_a_key_that_leaves_its_folder_is_refused_everywhere(
    store: LocalBlobStore, root: Path, key: str
) -> None:
    store.put("p/a", b"kept")
    for action in (
        lambda: store.put(key, b"x"),
        lambda: store.read(key),
        lambda: list(store.stream(key)),
        lambda: store.delete(key),
        lambda: store.delete_prefix(key),
        lambda: list(store.keys(key)),
    ):
        with pytest.raises(InvalidRequest):
            action()
    assert files(root) == {"blobs/p/a"}


def test_a_missing_blob_is_not_found_and_its_removal_is_nothing(store: LocalBlobStore) -> None:
    with pytest.raises(NotFound):
        store.read("p/none")
    with pytest.raises(NotFound):
        list(store.stream("p/none"))
    store.delete("p/none")
    store.delete_prefix("p")
    assert list(store.keys("p")) == []


def test_keys_and_removal_keep_to_the_folder_that_is_named(store: LocalBlobStore) -> None:
    for key in ("p/jobs/1/b", "p/jobs/1/a", "p/jobs/10/c", "q/jobs/1/d"):
        store.put(key, b"x")
    assert list(store.keys("p/jobs/1")) == ["p/jobs/1/a", "p/jobs/1/b"]
    store.delete("p/jobs/1/a")
    assert list(store.keys("p")) == ["p/jobs/1/b", "p/jobs/10/c"]
    store.delete_prefix("p/jobs/1")
    assert list(store.keys("p")) == ["p/jobs/10/c"]
    assert list(store.keys("q")) == ["q/jobs/1/d"]


def test_the_folders_are_for_this_user_only(store: LocalBlobStore, root: Path) -> None:
    store.put("p/a", b"x")
    for folder in (root, root / "tmp", root / "blobs"):
        assert folder.stat().st_mode & 0o077 == 0


def test_a_sweep_removes_what_is_a_day_old_and_nothing_younger(
    store: LocalBlobStore, root: Path
) -> None:
    store.put("p/a", b"x")
    for name, hours in (("old", 25), ("young", 23)):
        path = root / "tmp" / name
        path.write_bytes(b"unfinished")
        then = time.time() - hours * 3600
        os.utime(path, (then, then))
    os.utime(root / "blobs/p/a", (0, 0))
    assert store.sweep() == 1
    assert files(root) == {"tmp/young", "blobs/p/a"}


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths of what is flushed to disk from now on, in order."""
    paths: list[str] = []
    flush = os.fsync

    def watched(descriptor: int) -> None:
        flush(descriptor)
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", watched)
    return paths


def test_a_commit_flushes_the_bytes_before_the_name(
    store: LocalBlobStore, root: Path, flushed: list[str]
) -> None:
    store.put("a", b"x")
    assert Path(flushed[0]).parent == root / "tmp"
    assert str(root / "blobs") in flushed[1:]


def test_a_commit_flushes_the_entry_of_every_new_folder(
    store: LocalBlobStore, root: Path, flushed: list[str]
) -> None:
    store.put("p/jobs/1/attempt/a", b"x")
    needed = ("blobs", "blobs/p", "blobs/p/jobs", "blobs/p/jobs/1", "blobs/p/jobs/1/attempt")
    assert {str(root / folder) for folder in needed} <= set(flushed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command to make a small disk with")
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("piece", [1000, 512 * 1024])
def test_a_full_disk_is_named_and_keeps_nothing_of_the_blob(small_disk: Path, piece: int) -> None:
    store = LocalBlobStore(small_disk / "data")
    store.put("p/a", b"a" * 1000)

    def too_much() -> None:
        with store.writer("p/big") as writer:
            for _ in range(512 * 1024 // piece):
                writer.write(b"x" * piece)
            writer.commit()

    with pytest.raises(StorageFull) as caught:
        too_much()
    assert caught.value.code == "insufficient_storage"
    assert files(small_disk) == {"data/blobs/p/a"}
    store.put("p/b", b"b" * 1000)  # the space is free again
    assert store.read("p/b") == b"b" * 1000


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS])
def test_a_disk_that_fails_is_named_and_keeps_nothing_of_the_blob(
    store: LocalBlobStore, root: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patches:
        patches.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable, match=os.strerror(error)) as caught:
            store.put("p/a", b"x")
    assert caught.value.code == "storage_unavailable"
    assert files(root) == set()
    store.put("p/a", b"x")


def test_an_error_that_is_not_the_disks_stays_what_it_was(store: LocalBlobStore) -> None:
    with pytest.raises(ConnectionResetError), store.writer("p/a"):
        raise ConnectionResetError(errno.ECONNRESET, "the client has gone")


def test_bytes_that_only_fail_at_the_flush_are_a_full_disk_too(small_disk: Path) -> None:
    store = LocalBlobStore(small_disk / "data")
    filler = small_disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as handle:
            while handle.write(b"x" * 4096):
                pass

    def late() -> None:
        with store.writer("p/a") as writer:
            writer.write(b"x" * 100)  # stays in the buffer
            with pytest.raises(OSError, match="No space"):
                fill()
            writer.commit()

    with pytest.raises(StorageFull):
        late()
    assert files(small_disk) == {"filler"}
