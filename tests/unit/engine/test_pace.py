"""How many tokens of prompts a step takes, from steps whose times are given."""

import pytest

from tunery.engine.pace import LEAST, Pace


def test_a_step_that_makes_no_token_takes_the_most() -> None:
    pace = Pace(512, 0.040)
    pace.took(10.0, 4, 96)  # far too long
    assert pace.budget(0) == 512


def test_the_first_step_beside_answers_takes_few() -> None:
    assert Pace(512, 0.040).budget(1) == LEAST


def test_a_step_takes_as_many_more_as_there_was_time_for() -> None:
    pace = Pace(512, 0.040)
    # 10 made and 30 of prompts in 20 ms: half a millisecond each, and 20 ms are left for 40 more.
    pace.took(0.020, 10, 30)
    assert pace.budget(10) == 70


def test_a_step_that_took_too_long_is_followed_by_a_shorter_one() -> None:
    pace = Pace(512, 0.040)
    # 10 made and 90 of prompts in 50 ms: half a millisecond each, 10 ms too many.
    pace.took(0.050, 10, 90)
    assert pace.budget(10) == 70


def test_where_answers_alone_take_longer_prompts_add_half_of_that() -> None:
    pace = Pace(512, 0.040)
    # 80 made and 20 of prompts in 100 ms: 1 ms each, 80 ms for the answers, 120 ms allowed.
    pace.took(0.100, 80, 20)
    assert pace.budget(80) == 40


def test_where_any_step_takes_long_it_takes_six_times_that() -> None:
    pace = Pace(512, 0.040, 0.020)
    # 10 made and 40 of prompts in 100 ms: 2 ms each, 120 ms allowed.
    pace.took(0.100, 10, 40)
    assert pace.budget(10) == 50


def test_there_is_always_a_little_and_never_more_than_the_most() -> None:
    pace = Pace(64, 0.040)
    pace.took(1.0, 1, 100)
    assert pace.budget(1) == LEAST
    pace.took(0.001, 1, 100)
    assert pace.budget(1) == 64


def test_the_cost_of_a_token_follows_the_steps() -> None:
    pace = Pace(512, 0.040)
    pace.took(0.020, 0, 20)  # 1 ms each
    pace.took(0.040, 0, 20)  # 2 ms: now thought to be 1 + 0.3 of the difference
    pace.took(0.001, 1, 0)  # too little to learn from; 39 ms are left
    assert pace.budget(1) == 30


@pytest.mark.parametrize(("decoding", "prompt"), [(1, 0), (8, LEAST - 1)])
def test_nothing_is_learned_from_a_step_with_hardly_a_prompt(decoding: int, prompt: int) -> None:
    pace = Pace(512, 0.040)
    pace.took(0.001, decoding, prompt)
    assert pace.budget(1) == LEAST
