"""Prompts are put to both models, and the sums are over those that both have answered."""

from collections.abc import Mapping
from typing import Any

import pytest

from tunery.datasets.recorded import RecordedPrompt
from tunery.domain.errors import InvalidRequest, TuneryError
from tunery.services.replaying import Agreement, Ask, agreement, replay


def prompts(*answers: str | None) -> list[RecordedPrompt]:
    return [RecordedPrompt(n, {"number": n}, answer) for n, answer in enumerate(answers, 1)]


def answers(*texts: str) -> Ask:
    def ask(body: Mapping[str, Any]) -> str:
        text: str = texts[body["number"] - 1]
        if text == "down":
            raise TuneryError("it is down")
        return text

    return ask


def test_recorded_answers_stand_for_the_old_model() -> None:
    found = list(replay(prompts("a b", '{"x": 1}'), None, answers("a c", '{"x":1}'), 2))
    assert [(one.prompt.number, one.old, one.new) for one in found] == [
        (1, "a b", "a c"),
        (2, '{"x": 1}', '{"x":1}'),
    ]
    assert agreement(found) == Agreement(
        prompts=2,
        compared=2,
        failed=0,
        exact=0.0,
        normalized=0.0,
        json_prompts=1,
        json_equal=1.0,
        token_f1=(0.5 + 1.0) / 2,  # one word of two; the same signs and words
    )


def test_who_is_asked_again_is_held_to_what_it_says_now() -> None:
    (found,) = replay(prompts("recorded"), answers("now"), answers("now"), 1)
    assert (found.old, found.likeness and found.likeness.exact) == ("now", True)


def test_a_prompt_that_one_of_them_does_not_answer_is_told_and_not_counted() -> None:
    found = list(replay(prompts("a", "b", "c"), None, answers("a", "down", "x"), 3))
    assert [one.error for one in found] == ["", "it is down", ""]
    total = agreement(found)
    assert (total.prompts, total.compared, total.failed, total.exact) == (3, 2, 1, 0.5)


def test_nobody_is_asked_where_an_answer_is_missing() -> None:
    asked: list[Any] = []

    def ask(body: Mapping[str, Any]) -> str:
        asked.append(body)
        return "a"

    with pytest.raises(InvalidRequest, match="Prompt 2 has no recorded answer"):
        list(replay(prompts("a", None), None, ask, 1))
    assert asked == []


def test_without_a_new_model_nothing_is_compared() -> None:
    found = list(replay(prompts(None, "b"), answers("x", "y"), None, 1))
    assert [one.old for one in found] == ["x", "y"]
    assert agreement(found) == Agreement(2, 0, 0, 0.0, 0.0, 0, 0.0, 0.0)
