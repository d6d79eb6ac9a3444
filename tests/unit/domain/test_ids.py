"""Ids as OpenAI writes them."""

import re

from tunery.domain.ids import new_id, random_text


def test_an_id_is_its_prefix_and_24_letters_or_digits() -> None:
    ids = {new_id("ftjob-") for _ in range(500)}
    assert len(ids) == 500
    assert all(re.fullmatch("ftjob-[A-Za-z0-9]{24}", one) for one in ids)


def test_random_text_draws_on_the_whole_alphabet() -> None:
    # 10,000 draws miss one of 62 characters with probability below 62 * (61/62)^10000 < 1e-68.
    assert len(set(random_text(10_000))) == 62
    assert random_text(0) == ""
