"""The packaged embedding model: its own weights and tokenizer, through the engine's client."""

import os
from pathlib import Path

import pytest

from support.embeddings import vector_by_hand
from tunery.domain.errors import InvalidRequest
from tunery.domain.models import EmbeddingModel
from tunery.model.embedding import load_embedding
from tunery.settings import Settings
from tunery.storage.catalogue import Catalogue
from tunery.wiring.storage import embedding_tokenizer_of

pytestmark = pytest.mark.slow

NAME = "all-minilm-l6-v2"


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    models = Settings(models=Path(os.environ.get("TUNERY_MODELS", Settings().models))).models_path
    entry = models / NAME / "tunery.json"
    assert entry.is_file(), f"{entry} is missing; run `tunery models pull`"
    model = Catalogue(models).embedding(NAME)
    assert model is not None
    return model


def _vectors(model: EmbeddingModel, texts: list[str]) -> list[list[float]]:
    ids = embedding_tokenizer_of(model).encode(texts)
    rows: list[list[float]] = load_embedding(Path(model.path)).vectors(ids).tolist()
    return rows


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_it_is_the_model_that_its_publisher_describes(model: EmbeddingModel) -> None:
    assert (model.dimensions, model.max_tokens) == (384, 256)
    # The model card's own example: BERT's ids of it, and the first numbers that all get for it.
    text = "This is an example sentence"
    ids = [101, 2023, 2003, 2019, 2742, 6251, 102]
    assert embedding_tokenizer_of(model).encode([text]) == [ids]
    (vector,) = _vectors(model, [text])
    assert vector[:4] == pytest.approx([0.0677, 0.0635, 0.0487, 0.0793], abs=1e-4)
    assert vector == pytest.approx(vector_by_hand(Path(model.path), ids), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "paraphrase", "unrelated"),
    [
        (
            "How do I reset my password?",
            "I forgot my login and need a new one.",
            "The soup needs another hour on the stove.",
        ),
        (
            "The central bank raised interest rates.",
            "Borrowing becomes more expensive after the monetary decision.",
            "The cat sleeps on the warm roof.",
        ),
        (
            "A man is playing a guitar on stage.",
            "Somebody performs music in front of an audience.",
            "Install the package with its dependencies.",
        ),
    ],
)
def test_texts_that_mean_the_same_are_nearer_than_others(
    model: EmbeddingModel, text: str, paraphrase: str, unrelated: str
) -> None:
    one, same, other = _vectors(model, [text, paraphrase, unrelated])
    assert _cosine(one, same) > _cosine(one, other) + 0.2


def test_a_text_of_256_tokens_is_read_whole_and_a_longer_one_is_refused(
    model: EmbeddingModel,
) -> None:
    tokenizer = embedding_tokenizer_of(model)
    longest = "rain " * 254
    assert [len(ids) for ids in tokenizer.encode([longest])] == [256]
    with pytest.raises(InvalidRequest, match="256 tokens"):
        tokenizer.encode([longest + "sun"])
    plain, other_end = _vectors(model, [longest, longest[:-5] + "sun"])
    # The last word counts: a hundred times what rounding does.
    assert max(abs(a - b) for a, b in zip(plain, other_end, strict=True)) > 1e-4
