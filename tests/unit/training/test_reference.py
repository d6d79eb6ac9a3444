"""The proof's reference against LoRA by its definition."""

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import load, save

from support.networks import (
    PEFT_WARNING,
    log_probabilities,
    merged_model,
    random_adapter,
    store,
    tokens,
)
from tunery.domain.errors import NotFound
from tunery.domain.jobs import Adapter
from tunery.domain.ports.training import ProofRequest
from tunery.storage.blobs import LocalBlobStore
from tunery.training.reference import PeftReference

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

TEXTS = (tuple(tokens(30, 0)), tuple(tokens(2, 1)), tuple(tokens(9, 2)))


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


def _request(*adapters: Adapter) -> ProofRequest:
    return ProofRequest("tiny", "b" * 64, adapters, TEXTS)


def test_scores_are_those_of_the_base_with_each_adapter_added_to_its_matrices(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    weights = [random_adapter(tiny_model, 1), random_adapter(tiny_model, 2, rank=3, alpha=7.0)]
    adapters = [store(blobs, f"p/{n}", one) for n, one in enumerate(weights)]
    scores = PeftReference(blobs, tiny_model, 0).score(_request(*adapters))
    assert len(scores) == 2
    for one, found in zip(weights, scores, strict=True):
        model = merged_model(tiny_model, one)
        for ids, row in zip(TEXTS, found, strict=True):
            assert row == pytest.approx(log_probabilities(model, ids), abs=1e-3)
    assert scores[0][0] != pytest.approx(scores[1][0], abs=0.1)


def test_files_that_are_not_those_saved_are_refused(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    adapter = store(blobs, "p/a", random_adapter(tiny_model, 1))
    data = blobs.read("p/a/adapter_model.safetensors")
    blobs.put("p/a/adapter_model.safetensors", data[:-1] + bytes([data[-1] ^ 1]))
    reference = PeftReference(blobs, tiny_model, 0)
    with pytest.raises(ValueError, match="digest"):
        reference.score(_request(adapter))
    with pytest.raises(NotFound):
        reference.score(_request(Adapter("p/none", adapter.digest)))


def test_a_tensor_that_the_base_has_no_place_for_is_refused(
    tiny_model: Path, blobs: LocalBlobStore
) -> None:
    store(blobs, "p/a", random_adapter(tiny_model, 1))
    tensors = load(blobs.read("p/a/adapter_model.safetensors"))
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    tensors[name.replace("layers.1", "layers.2")] = tensors.pop(name)
    blobs.put("p/b/adapter_model.safetensors", save(tensors))
    blobs.put("p/b/adapter_config.json", blobs.read("p/a/adapter_config.json"))
    digest = hashlib.sha256(save(tensors)).hexdigest()
    with pytest.raises(ValueError, match=r"layers\.2"):
        PeftReference(blobs, tiny_model, 0).score(_request(Adapter("p/b", digest)))
