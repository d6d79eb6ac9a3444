"""When a file is to expire, as a form says it."""

import pytest

from tunery.domain.errors import InvalidRequest
from tunery.wire.files import ANCHOR, SECONDS, from_wire_expiry_field


def test_the_anchor_is_the_creation_and_the_seconds_are_from_an_hour_to_thirty_days() -> None:
    assert from_wire_expiry_field(ANCHOR, "created_at") is None
    assert from_wire_expiry_field(SECONDS, "3600") == 3600
    assert from_wire_expiry_field(SECONDS, "2592000") == 2_592_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (ANCHOR, "last_active_at"),
        (ANCHOR, ""),
        *(
            (SECONDS, value)
            for value in ("3599", "2592001", "-3600", "3600.0", "1e4", "", "\u0663600", "9" * 4000)
        ),
    ],
)
def test_another_expiry_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        from_wire_expiry_field(name, value)
    assert (refused.value.param, refused.value.code) == (name, "invalid_value")
    assert len(refused.value.message) < 200
