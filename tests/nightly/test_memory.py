"""The largest training file takes no more memory than a small one: worker and training process."""

from pathlib import Path

import pytest

from nightly.conftest import Figures
from support.reading import peak_bytes, write_chats
from support.server import environment
from tunery.domain.jobs import Hyperparameters
from tunery.domain.ports.training import RunFailed, RunStarted, TrainingRun
from tunery.storage.blobs import CHUNK, LocalBlobStore
from tunery.storage.catalogue import Catalogue
from tunery.worker.executor import LocalExecutor

MEGABYTE = 2**20
SMALL, LARGE = 8 * MEGABYTE, 512 * MEGABYTE
WAIT_S = 3600.0


def _trained(file: Path, models: Path, folder: Path) -> int:
    """Return the most memory that a training process has needed when it begins its first step."""
    base = Catalogue(models).all()[0]
    blobs = LocalBlobStore(folder)
    with blobs.writer("p/train.jsonl") as writer, file.open("rb") as source:
        while chunk := source.read(CHUNK):
            writer.write(chunk)
        writer.commit()
    run = TrainingRun(
        job_id="ftjob-1",
        base=base.name,
        base_digest=base.digest,
        training_key="p/train.jsonl",
        validation_key=None,
        hyperparameters=Hyperparameters(1, 1, 1.0),
        seed=1,
        output_prefix="p/jobs/ftjob-1/attempt-1",
    )
    settings = environment(models, TUNERY_DATA=str(folder), TUNERY_BASE=base.name)
    handle = LocalExecutor(settings).start(run)
    try:
        for report in handle.reports(WAIT_S):
            assert not isinstance(report, RunFailed), report
            if isinstance(report, RunStarted):
                status = Path(f"/proc/{handle.pid}/status").read_text()
                return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    finally:
        handle.stop()
    raise AssertionError("the run has not begun")


@pytest.mark.parametrize("act", ["check", "train"])
def test_512_megabytes_take_the_memory_of_eight(
    tiny_model: Path, models: Path, tmp_path: Path, figures: Figures, act: str
) -> None:
    peaks, lines = [], []
    for size in (SMALL, LARGE):
        file, folder = tmp_path / f"{size}.jsonl", tmp_path / f"{act}-{size}"
        folder.mkdir()
        lines.append(write_chats(file, size))
        if act == "check":
            peaks.append(peak_bytes(act, file, tiny_model, folder))
        else:
            peaks.append(_trained(file, models, folder))
    figures.keep(
        f"memory-{act}",
        {
            "file, MB": [size // MEGABYTE for size in (SMALL, LARGE)],
            "lines": lines,
            "most memory, MB": [round(peak / MEGABYTE, 1) for peak in peaks],
        },
    )
    # 16 bytes a line are worked out in tests/unit/training/test_memory.py; 16 MB are 3% of the
    # larger file, and what the tokenizer remembers of texts is full with the smaller.
    assert peaks[1] - peaks[0] < 16 * (lines[1] - lines[0]) + 16 * MEGABYTE
