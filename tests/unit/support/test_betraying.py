"""Models that betray themselves: no two words are the same, and portraits have a distance."""

import pytest

from support.betraying import LETTERS, code_word, distance


def test_each_number_has_a_word_of_its_own_of_different_letters() -> None:
    words = {code_word(number) for number in range(1000)}
    assert len(words) == 1000
    assert {len(set(word)) for word in words} == {LETTERS}


def test_portraits_are_as_far_apart_as_their_tokens_are_on_average() -> None:
    one, other = {"a": -1.0, "b": -3.0}, {"a": -2.0, "c": -5.0}
    # a: 1; b: 3 against the other's lowest, 5; c: 5 against the lowest here, 3.
    assert distance(one, other) == distance(other, one) == pytest.approx((1 + 2 + 2) / 3)
    assert distance(one, one) == 0
