"""A worker is killed at three random moments: what its jobs learn is the same to the byte.

The nightly run kills thirty.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kills import SETTINGS, VICTIMS, Harbor
from support.server import Server

pytestmark = pytest.mark.slow

SEED = 20261127


@pytest.fixture(scope="module")
def harbor(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbor]:
    with Server(tmp_path_factory.mktemp("killed"), models, **SETTINGS) as server:
        yield Harbor(server, SEED)


@pytest.mark.parametrize(
    ("moment", "method"),
    [("tokenizing", "dpo"), ("writing", "supervised"), ("training", "dpo")],
)
def test_a_job_whose_worker_is_killed_learns_the_same_to_the_byte(
    harbor: Harbor, moment: str, method: str
) -> None:
    rng = random.Random(f"{SEED} {moment}")
    harbor.kill(method, moment, rng.choice(VICTIMS), rng)
