"""Names of tuned models and their suffixes."""

import re

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.domain.models import check_suffix, checkpoint_name, tuned_name


@pytest.mark.parametrize("suffix", ["a", "Support-bot_v1.2", "x" * 64])
def test_a_good_suffix_is_given_back(suffix: str) -> None:
    assert check_suffix(suffix) == suffix


@pytest.mark.parametrize("suffix", ["", "x" * 65, "a:b", "a b", "a/b", "naïve", "a\n", "٣", "a\0"])
def test_a_bad_suffix_is_refused_by_name(suffix: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_suffix(suffix)
    assert (caught.value.param, caught.value.code) == ("suffix", "invalid_suffix")


@pytest.mark.parametrize(
    ("requested", "suffix", "expected"),
    [
        ("gpt-4o-mini", "bot", "ft:gpt-4o-mini:acme:bot:"),
        ("gpt-4o-mini", None, "ft:gpt-4o-mini:acme::"),
        ("ft:gpt-4o-mini:acme:old:abcd1234", "new", "ft:gpt-4o-mini:acme:new:"),
        ("ft:gpt-4o-mini:acme::abcd1234:ckpt-step-7", None, "ft:gpt-4o-mini:acme::"),
    ],
)
def test_a_tuned_models_name_carries_base_organization_and_suffix(
    requested: str, suffix: str | None, expected: str
) -> None:
    name = tuned_name(requested, "acme", suffix)
    assert name.startswith(expected)
    assert re.fullmatch("[A-Za-z0-9]{8}", name.removeprefix(expected))
    checkpoint = checkpoint_name(requested, "acme", suffix, 12)
    assert re.fullmatch(re.escape(expected) + "[A-Za-z0-9]{8}:ckpt-step-12", checkpoint)


def test_each_call_makes_a_new_name() -> None:
    assert len({tuned_name("base", "acme", "same") for _ in range(100)}) == 100
