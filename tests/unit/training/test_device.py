"""Training on a device that is not the processor, as far as a machine without a GPU can show it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.networks import PEFT_WARNING, random_adapter, store
from support.training_runs import TOY, of, put, put_pairs, train
from tunery.domain.jobs import StepMetrics
from tunery.domain.ports.training import ProofRequest
from tunery.storage.blobs import LocalBlobStore
from tunery.training.reference import PeftReference

NUMBERS = (
    "train_loss",
    "gradient_norm",
    "valid_loss",
    "full_valid_loss",
    "train_chosen_reward",
    "train_rejected_reward",
)


@pytest.fixture(scope="module")
def elsewhere(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what came of the runs of support.other_device."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, "-m", "support.other_device", str(tiny_model), str(folder)]
    found = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": found}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(orjson.loads(done.stdout.splitlines()[-1]))


def test_the_other_device_is_as_strict_as_a_gpu(elsewhere: dict[str, Any]) -> None:
    assert elsewhere["mixes"] is False


@pytest.mark.parametrize("kind", ["whole", "pairs"])
def test_a_run_on_another_device_learns_what_one_on_the_processor_does(
    tiny_model: Path, tmp_path: Path, elsewhere: dict[str, Any], kind: str
) -> None:
    blobs = LocalBlobStore(tmp_path)
    if kind == "pairs":
        put_pairs(blobs, "train", 7)
        reports = train(blobs, tiny_model, "out", beta=0.2)
    else:
        put(blobs, "train", TOY)
        put(blobs, "held", TOY[:3])
        reports = train(blobs, tiny_model, "out", validation_key="held")
    wanted = of(reports, StepMetrics)
    assert len(elsewhere[kind]["steps"]) == len(wanted) == 8
    for step, metrics in zip(elsewhere[kind]["steps"], wanted, strict=True):
        for name in NUMBERS:  # not to the bit: there, attention is torch's at every length
            number = getattr(metrics, name)
            assert step[name] == (number and pytest.approx(number, rel=0.05, abs=0.02)), name


def test_a_run_that_was_interrupted_there_goes_on_to_the_same_bytes(
    elsewhere: dict[str, Any],
) -> None:
    whole, rest = elsewhere["whole"], elsewhere["gone on"]
    assert [step["step"] for step in rest["steps"]] == [4, 5, 6, 7, 8]
    assert rest["digests"] == whole["digests"]
    assert len(set(rest["digests"])) == 2


@pytest.mark.filterwarnings(PEFT_WARNING)
def test_the_proofs_reference_scores_there_too(
    tiny_model: Path, tmp_path: Path, elsewhere: dict[str, Any]
) -> None:
    blobs = LocalBlobStore(tmp_path)
    adapter = store(blobs, "e", random_adapter(tiny_model, 1))
    request = ProofRequest("tiny", "b" * 64, (adapter,), ((1, 2, 3, 4, 5),))
    ((wanted,),) = PeftReference(blobs, tiny_model, 1).score(request)
    assert elsewhere["scores"][0][0] == pytest.approx(wanted, abs=1e-4)
