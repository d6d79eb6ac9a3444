"""Which operations a run computes with, and that it keeps to them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from support.native import FOLDER, needs
from support.networks import tokens
from support.tiny import make_tiny_model
from support.training_runs import ALWAYS, TOY, files, of, put, put_pairs, train
from tunery.datasets.batches import Example
from tunery.domain.errors import StorageFull
from tunery.domain.jobs import EpochCheckpoint, Snapshot
from tunery.domain.ports.training import RunPaused, RunStarted
from tunery.model import native
from tunery.model.base import compute_dtype, load_base
from tunery.model.operations import TORCH, Operations
from tunery.storage.blobs import LocalBlobStore
from tunery.training.adapter import LearnedAdapter
from tunery.training.arithmetic import operations_for
from tunery.training.sft import batch_loss


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base whose sizes the native operations take."""
    needs(native.TRAINING)
    return make_tiny_model(tmp_path_factory.mktemp("wide"), head_dim=32)


def test_native_where_it_fits(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    network = load_base(base, torch.bfloat16)
    assert operations_for(network, FOLDER, None).name == "native"
    assert operations_for(network, FOLDER, "native-bfloat16").name == "native"
    assert operations_for(network, None, None) is TORCH
    assert operations_for(network, FOLDER, "torch-bfloat16") is TORCH
    assert operations_for(load_base(base, torch.float32), FOLDER, None) is TORCH
    # its heads are too small
    assert operations_for(load_base(tiny_model, torch.bfloat16), FOLDER, None) is TORCH
    built = operations_for(network, tmp_path / "new", None)
    assert built.name == "native"
    assert native.built(tmp_path / "new", native.TRAINING) is not None


def test_torch_where_nothing_can_be_compiled(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_base(base, torch.bfloat16)
    (tmp_path / "a file").touch()
    assert operations_for(network, tmp_path / "a file", None) is TORCH  # no folder can be made
    monkeypatch.setenv("PATH", "")
    assert operations_for(network, tmp_path / "new", None) is TORCH


def _gradients(
    base: Path, dtype: torch.dtype, operations: Operations, examples: list[Example]
) -> Tensor:
    """Return the gradients of all matrices of an adapter, end to end."""
    network = load_base(base, dtype)
    learned = LearnedAdapter.over(network, seed=3, start_from=None, operations=operations)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer in learned.layers.values():
            layer.up.copy_(torch.randn(layer.up.shape, generator=generator) * 0.05)
    loss = batch_loss(network, examples)
    assert loss is not None
    loss.mean.backward()  # type: ignore[no-untyped-call]
    return torch.cat([one.grad.flatten() for one in learned.parameters() if one.grad is not None])


def test_a_full_disk_is_not_taken_for_a_machine_without_a_compiler(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho 'as: /tmp/x.o: No space left on device' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageFull, match="is full"):
        operations_for(load_base(base, torch.bfloat16), tmp_path / "new", None)


@pytest.mark.parametrize("shared", [0, 24])
def test_gradients_are_no_further_from_float32s_than_torchs(base: Path, shared: int) -> None:
    texts = [tokens(shared, 9) + tokens(length, length) for length in (40, 33, 21)]
    examples = [Example(text, [i % 3 > 0 for i in range(len(text))]) for text in texts]
    native_operations = operations_for(load_base(base, torch.bfloat16), FOLDER, None)
    assert native_operations.name == "native"
    exact = _gradients(base, torch.float32, TORCH, examples)
    assert exact.norm() > 0
    ours, torchs = (
        float((_gradients(base, torch.bfloat16, one, examples) - exact).norm() / exact.norm())
        for one in (native_operations, TORCH)
    )
    assert 0 < ours < 1.1 * torchs < 0.05


@pytest.mark.parametrize("beta", [None, 0.2])
@pytest.mark.parametrize("begun", [None, FOLDER], ids=["torch", "native"])
def test_a_run_ends_in_the_arithmetic_that_it_began_in(
    base: Path, tmp_path: Path, begun: Path | None, beta: float | None
) -> None:
    if compute_dtype() != torch.bfloat16:
        pytest.skip("this processor computes in float32")
    blobs = LocalBlobStore(tmp_path)
    if beta is None:
        put(blobs, "train", TOY)
    else:
        put_pairs(blobs, "train", 7)
    whole = train(blobs, base, "job/whole", native=begun, beta=beta)
    first = train(blobs, base, "job/first", native=begun, beta=beta, pause_at=3, snapshot_s=ALWAYS)
    assert of(first, RunPaused)
    last = of(first, Snapshot)[-1]
    # What may be compiled has changed meanwhile for the run that began in torch.
    rest = train(blobs, base, "job/rest", native=FOLDER, beta=beta, resume_from=last)
    (started,) = of(rest, RunStarted)
    assert started.made_with is not None
    name = "torch" if begun is None else "native"
    assert started.made_with.arithmetic == f"{name}-bfloat16"
    one, other = of(whole, EpochCheckpoint)[-1], of(rest, EpochCheckpoint)[-1]
    assert files(blobs, one.adapter) == files(blobs, other.adapter)
