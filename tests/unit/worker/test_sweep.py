"""What time alone brings about."""

from pathlib import Path

import pytest

from support.rows import OURS, THEIRS, a_job
from tunery.domain.jobs import JobStatus
from tunery.storage.database import Database
from tunery.training.cache_folder import CacheFolder
from tunery.worker.sweep import remove_ended_caches


@pytest.mark.parametrize("status", JobStatus)
def test_the_token_cache_of_a_job_that_has_ended_is_swept(
    database: Database, tmp_path: Path, status: JobStatus
) -> None:
    caches = CacheFolder(tmp_path, 2**30)
    with database.write() as tx:
        tx.jobs(OURS).add(a_job(status=status))
        tx.jobs(THEIRS).add(a_job("ftjob-1", status=JobStatus.RUNNING))
        tx.jobs(THEIRS).add(a_job("ftjob-2", status=JobStatus.CANCELLED))
    jobs = [
        f"{tenant.project_id}/jobs/{job_id}"
        for tenant in (OURS, THEIRS)
        for job_id in ("ftjob-1", "ftjob-2")  # ours of the second id is not known at all
    ]
    for job in jobs:
        with caches.held(job):
            pass
    ended = status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)
    kept = {f"{THEIRS.project_id}/jobs/ftjob-1"}
    kept |= set() if ended else {f"{OURS.project_id}/jobs/ftjob-1"}
    sweep = remove_ended_caches(database, caches)
    assert sweep(0) == len(jobs) - len(kept)
    assert set(caches.jobs()) == kept
    assert sweep(0) == 0


def test_a_cache_that_is_still_read_is_swept_later(database: Database, tmp_path: Path) -> None:
    caches = CacheFolder(tmp_path, 2**30)
    sweep = remove_ended_caches(database, caches)
    with caches.held("p/jobs/ftjob-1"):
        assert sweep(0) == 0
    assert sweep(0) == 1
    assert caches.jobs() == []
