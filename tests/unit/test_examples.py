"""The examples' data: seeded, fit to train on, and split as they say."""

from polite_replies import MATTERS, PRODUCTS, is_polite, make, preference_line
from tunery.datasets.checks import check_preference_line


def test_every_reply_of_the_preferences_is_what_it_is_preferred_for() -> None:
    for preference in make("train", 50) + make("test", 50):
        assert check_preference_line(preference_line(preference)) is None
        assert is_polite(preference.polite)
        assert not is_polite(preference.curt)


def test_preferences_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert make("train", 20, 1) == make("train", 20, 1) != make("train", 20, 2)
    assert make("train", 20, 1)[:5] == make("train", 5, 1)


def test_no_product_and_no_phrasing_is_in_both_splits() -> None:
    assert not set(PRODUCTS["train"]) & set(PRODUCTS["test"])
    assert all(not set(matter.train) & set(matter.test) for matter in MATTERS)
    asked = {split: {one.question for one in make(split, 500)} for split in ("train", "test")}
    assert not asked["train"] & asked["test"]
