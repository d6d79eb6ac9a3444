"""A training file that is larger does not take more memory: seen from outside, as a process."""

from pathlib import Path

import pytest

from support.reading import ACTS, peak_bytes, write_chats, write_wordy_model

SMALL, LARGE = 2**20, 4 * 2**20


@pytest.mark.parametrize("act", ACTS)
def test_the_memory_of_a_process_does_not_grow_with_its_training_file(
    tmp_path: Path, act: str
) -> None:
    model = write_wordy_model(tmp_path / "model")
    peaks, lines = [], []
    for size in (SMALL, LARGE):
        file, folder = tmp_path / f"{size}.jsonl", tmp_path / f"{act}-{size}"
        folder.mkdir()
        lines.append(write_chats(file, size))
        peaks.append(peak_bytes(act, file, model, folder))
    # A line takes its length twice while it is found, its place in an epoch and at most one batch:
    # four bytes each. Beside that, the larger file fills a whole shard, which the smaller does not:
    # a million tokens of two bytes, a byte for each mask while it is made, an eighth of a byte
    # packed, and as much again of what an array leaves behind as it grows. As lists, three
    # megabytes of text more were a million tokens of 16 bytes and an object of 28 for most of them.
    shard = 2 * (2 + 1 + 1 / 8) * 2**20
    assert peaks[1] - peaks[0] < 16 * (lines[1] - lines[0]) + shard + 2**20
