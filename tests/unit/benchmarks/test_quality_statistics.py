"""Intervals against published and hand-made numbers."""

import math

import pytest
from quality_statistics import difference, share


def test_wilson_s_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81 of 263.
    found = share([True] * 81 + [False] * 182)
    assert found.value == pytest.approx(0.3080, abs=5e-5)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_wilson_s_interval_of_none_is_not_empty() -> None:
    # The same table: 0 of 20 gives 0 to 0.1611.
    found = share([False] * 20)
    assert (found.low, found.high) == pytest.approx((0, 0.1611), abs=5e-5)


def test_a_difference_is_paired() -> None:
    # First right where second is, and on 10 of 100 more: each resample's mean is that of 100 draws
    # of which a tenth are 1, so that the interval is near 0.1 +- 1.96 * sqrt(0.1 * 0.9 / 100).
    first = [True] * 60 + [False] * 40
    second = [True] * 50 + [False] * 50
    found = difference(first, second, [str(place) for place in range(100)])
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.041, 0.159), abs=0.02)
    # Unpaired, the same shares would be apart by 0.1 +- 1.96 * sqrt(0.24 / 100 + 0.25 / 100).
    assert found.low > 0.1 - 1.96 * math.sqrt(0.49 / 100)


def test_questions_of_a_group_are_drawn_together() -> None:
    # Of four groups of ten, one is won and none lost: a resample without it is no rarer than
    # (3/4)^4 = 0.32, and one that has it two times or more is as likely as 1 - 0.32 - 0.42 = 0.26.
    first = [True] * 10 + [False] * 30
    groups = [str(place // 10) for place in range(40)]
    found = difference(first, [False] * 40, groups)
    assert found.value == pytest.approx(0.25)
    assert found.low == 0
    assert found.high == pytest.approx(0.75)  # three times: 0.047, and four times 0.004


def test_the_same_answers_have_no_difference() -> None:
    found = difference([True, False, True], [True, False, True], ["a", "b", "c"])
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_difference_has_a_sign_and_is_the_same_each_time() -> None:
    ahead, behind = [True, True, False, True] * 10, [True, False, False, True] * 10
    groups = [str(place) for place in range(40)]
    assert difference(ahead, behind, groups).value == pytest.approx(0.25)
    assert difference(behind, ahead, groups).value == pytest.approx(-0.25)
    assert difference(ahead, behind, groups) == difference(ahead, behind, groups)


def test_answers_to_other_numbers_of_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 answers to 2 questions"):
        difference([True, False], [True], ["a", "b"])
