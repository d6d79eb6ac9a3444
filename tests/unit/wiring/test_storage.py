"""Parts made from a model's files."""

from pathlib import Path

import pytest

from support.embeddings import make_tiny_embedding
from tunery.domain.errors import Unavailable
from tunery.storage.catalogue import Catalogue
from tunery.wiring.storage import embedding_tokenizer_of


def test_an_embedding_models_tokenizer_needs_its_files(tmp_path: Path) -> None:
    folder = make_tiny_embedding(tmp_path / "weights")
    model = Catalogue(tmp_path / "models").add_embedding("mini", folder, aliases=())
    tokenizer = folder / "tokenizer.json"
    hidden = tokenizer.rename(tmp_path / "hidden")
    with pytest.raises(Unavailable, match="tunery models pull mini --again") as refused:
        embedding_tokenizer_of(model)
    assert refused.value.code == "model_files_missing"
    hidden.rename(tokenizer)
    assert embedding_tokenizer_of(model).encode(["sun"]) == [[2, 5, 3]]
    assert embedding_tokenizer_of(model) is embedding_tokenizer_of(model)  # it is read once
