"""Moderations through the official SDK: the shape is whole, and says that nothing was judged."""

from typing import Any

import openai
import pytest
from openai import OpenAI

CATEGORIES = 13
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}


@pytest.mark.parametrize(
    ("given", "results"),
    [
        ("a text", 1),
        (["one", "two", "three"], 3),
        ([{"type": "text", "text": "look"}, IMAGE], 1),
        ("", 1),
    ],
)
def test_each_input_has_its_verdict(client: OpenAI, given: Any, results: int) -> None:
    made = client.moderations.create(input=given)
    assert made.model == "omni-moderation-latest"
    assert made.id.startswith("modr-")
    assert len(made.results) == results
    for result in made.results:
        assert len(result.categories.to_dict()) == CATEGORIES
        assert len(result.category_scores.to_dict()) == CATEGORIES
        applied = result.category_applied_input_types.to_dict()
        assert len(applied) == CATEGORIES
        assert not any(applied.values())  # nothing judged it, and the answer says so
        assert result.to_dict()["tunery"] == {"judged": False}
        assert not result.flagged


@pytest.mark.parametrize("model", ["omni-moderation-2024-09-26", "text-moderation-stable"])
def test_the_model_asked_for_is_named(client: OpenAI, model: str) -> None:
    assert client.moderations.create(input="x", model=model).model == model


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [1]}, "input"),
        ({"input": ["a", IMAGE]}, "input"),
        ({"input": [{"type": "image_url"}]}, "input"),
        ({"input": [IMAGE], "model": "text-moderation-latest"}, "input"),
        ({"input": ["x"] * 1025}, "input"),
        ({}, "input"),
        ({"input": "x", "policy": "y"}, "policy"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/moderations", body=fields, cast_to=object)
    assert refused.value.param is not None
    assert refused.value.param.partition(".")[0] == param


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.moderations.create(input="x", model="gpt-4")
    assert refused.value.code == "model_not_found"
