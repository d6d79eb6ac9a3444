"""Vectors of a tiny BERT, held against its equations worked out from the weights alone."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.embeddings import DIMENSIONS, make_tiny_embedding, vector_by_hand
from tunery.model.embedding import load_embedding

TEXTS = [[2, 4, 5, 3], [2, 3], [2, *range(4, 17), 3], [2, 8, 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_embedding(tmp_path_factory.mktemp("bert"))


def test_vectors_are_the_mean_over_the_texts_own_tokens_at_length_1(folder: Path) -> None:
    network = load_embedding(folder)
    assert (network.vocabulary, network.positions) == (17, 64)
    found = network.vectors(TEXTS)
    assert (found.shape, found.dtype) == ((len(TEXTS), DIMENSIONS), torch.float32)
    for row, ids in zip(found.tolist(), TEXTS, strict=True):
        assert row == pytest.approx(vector_by_hand(folder, ids), abs=1e-5)
        assert math.hypot(*row) == pytest.approx(1, abs=1e-6)
    # The reference tells these apart by far more than the tolerance.
    assert max(abs(a - b) for a, b in zip(found[0].tolist(), found[3].tolist(), strict=True)) > 0.01


def test_a_texts_vector_does_not_depend_on_its_neighbours(folder: Path) -> None:
    network = load_embedding(folder)
    together = network.vectors(TEXTS)
    for place, ids in enumerate(TEXTS):
        assert together[place].tolist() == pytest.approx(
            network.vectors([ids])[0].tolist(), abs=1e-6
        )


def test_weights_that_lack_a_layer_are_refused_not_made_up(tmp_path: Path) -> None:
    folder = make_tiny_embedding(tmp_path)
    weights = load_file(folder / "model.safetensors")
    lost = "encoder.layer.1.output.dense.weight"
    save_file(
        {name: w for name, w in weights.items() if name != lost}, folder / "model.safetensors"
    )
    with pytest.raises(ValueError, match=lost):
        load_embedding(folder)


def test_a_pickle_is_not_read(tmp_path: Path) -> None:
    folder = make_tiny_embedding(tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load_embedding(folder)
