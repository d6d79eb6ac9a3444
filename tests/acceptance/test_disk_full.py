"""A disk that fills up: a clear error, nothing half there, and work again once there is room."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.server import Server, chat_lines

pytestmark = pytest.mark.slow

DISK = 24 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs a mount command, to make a small disk")
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def stored(server: Server) -> set[Path]:
    """Return the files below the blob store's folders."""
    folders = (server.data / "blobs", server.data / "tmp")
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_an_upload_that_does_not_fit_is_refused_whole_and_the_next_one_that_fits_is_taken(
    small_disk: Path, models: Path
) -> None:
    with Server(small_disk, models) as server:
        client, http = server.client(), server.http()
        first = client.files.create(file=("first.jsonl", chat_lines(10)), purpose="fine-tune")
        client.files.wait_for_processing(first.id, poll_interval=0.1)
        before, listed = stored(server), [file.id for file in client.files.list()]

        too_much = {"file": ("big.bin", bytes(DISK))}
        response = http.post("/v1/files", data={"purpose": "user_data"}, files=too_much)
        assert response.status_code == 507, response.text
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("server_error", "insufficient_storage")
        assert "is full" in error["message"]
        assert stored(server) == before
        assert [file.id for file in client.files.list()] == listed

        # Now not even the database has room.
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as handle, suppress(OSError):
            while handle.write(bytes(4096)):
                pass
        small = {"file": ("small.jsonl", chat_lines(2000))}
        response = http.post("/v1/files", data={"purpose": "fine-tune"}, files=small)
        assert response.status_code == 507, response.text
        assert response.json()["error"]["code"] == "insufficient_storage"
        assert [file.id for file in client.files.list()] == listed
        assert client.files.content(first.id).read() == chat_lines(10)

        ballast.unlink()
        assert stored(server) == before
        again = client.files.create(file=("small.jsonl", chat_lines(2000)), purpose="fine-tune")
        again = client.files.wait_for_processing(again.id, poll_interval=0.1)
        assert again.status == "processed"
        assert client.files.content(again.id).read() == chat_lines(2000)
