"""Embeddings through the official SDK: right vectors in either form, counted, refused by name."""

import base64
import math
import struct
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from support.embeddings import CLS, DIMENSIONS, LONGEST, SEP, WORDS, vector_by_hand
from support.server import EMBEDDING

TEXTS = ["the sun", "rain, rain", "a b c"]


def ids_of(*words: str) -> list[int]:
    return [CLS, *(WORDS.index(word) for word in words), SEP]


def folder_of(models: Path) -> Path:
    return models.parent / "vectors"


def test_a_texts_vector_is_the_models_own(client: OpenAI, models: Path) -> None:
    made = client.embeddings.create(model=EMBEDDING, input=TEXTS)  # the SDK asks for base64
    by_hand = [
        vector_by_hand(folder_of(models), ids)
        for ids in (ids_of("the", "sun"), ids_of("rain", ",", "rain"), ids_of("a", "b", "c"))
    ]
    assert made.object == "list"
    assert made.model == EMBEDDING
    assert [one.index for one in made.data] == [0, 1, 2]
    for one, expected in zip(made.data, by_hand, strict=True):
        assert one.embedding == pytest.approx(expected, abs=1e-5)
    assert made.usage.prompt_tokens == made.usage.total_tokens == 4 + 5 + 5


def test_base64_holds_little_endian_float32_of_the_same_numbers(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": EMBEDDING, "input": "the sun"}
    as_float = client.embeddings.create(encoding_format="float", **asked).data[0].embedding
    raw: Any = client.embeddings.create(encoding_format="base64", **asked).data[0].embedding
    assert isinstance(raw, str)
    numbers = struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(raw))
    assert list(numbers) == pytest.approx(as_float, abs=1e-7)


def test_fewer_dimensions_are_the_first_ones_brought_back_to_length_one(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": EMBEDDING, "input": "the sun"}
    whole = client.embeddings.create(**asked).data[0].embedding
    short = client.embeddings.create(dimensions=5, **asked).data[0].embedding
    length = math.sqrt(sum(number**2 for number in whole[:5]))
    assert short == pytest.approx([number / length for number in whole[:5]], abs=1e-6)
    assert math.hypot(*short) == pytest.approx(1, abs=1e-6)


def test_ids_are_taken_under_the_models_own_name_alone(client: OpenAI) -> None:
    ids = [WORDS.index("the"), WORDS.index("sun")]
    own = client.embeddings.create(model="tiny-vectors", input=[ids]).data[0].embedding
    text = client.embeddings.create(model=EMBEDDING, input="the sun").data[0].embedding
    assert own == pytest.approx(text, abs=1e-6)
    with pytest.raises(openai.BadRequestError, match="would mean other words") as refused:
        client.embeddings.create(model=EMBEDDING, input=ids)
    assert refused.value.param == "input"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x", ""]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a " * LONGEST}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"input": "x", "dimensions": DIMENSIONS + 1}, "dimensions"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "x", "truncate": True}, "truncate"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/embeddings", body={"model": EMBEDDING, **fields}, cast_to=object)
    assert refused.value.param is not None
    assert refused.value.param.partition(".")[0] == param


def test_a_model_that_makes_no_vectors_is_refused_and_an_unknown_one_not_found(
    client: OpenAI,
) -> None:
    for name, instead in (
        ("gpt-3.5-turbo", "v1/chat/completions"),
        ("omni-moderation-latest", "v1/moderations"),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            client.embeddings.create(model=name, input="x")
        assert (refused.value.param, refused.value.code) == ("model", None)
        assert (
            "This is not an embedding model and thus not supported in the v1/embeddings endpoint."
            f" Did you mean to use {instead}?"
        ) in refused.value.message
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="nope", input="x")
    assert (refused.value.param, refused.value.code) == (None, "model_not_found")


def test_the_list_of_models_says_what_stands_behind_each_name(client: OpenAI) -> None:
    models = {model.id: model.to_dict()["tunery"] for model in client.models.list()}
    behind: Any = models[EMBEDDING]
    assert behind["kind"] == "embedding"
    assert (behind["base"], behind["dimensions"]) == ("tiny-vectors", DIMENSIONS)
    assert models["gpt-3.5-turbo"]["base"] == "tiny"  # type: ignore[index]
    assert client.models.retrieve(EMBEDDING).to_dict()["tunery"] == behind
