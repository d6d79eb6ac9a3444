"""What errors say."""

from tunery.domain.errors import ContextTooLong, Overloaded, StorageFull, TooLarge, TuneryError


def test_a_context_that_is_too_long_is_told_with_its_numbers() -> None:
    error = ContextTooLong(4096, 4000, 200)
    assert (error.param, error.code) == ("messages", "context_length_exceeded")
    assert str(error) == error.message
    assert all(number in error.message for number in ("4096 tokens", "4200 tokens", "4000 in the"))
    assert "200 in the completion" in error.message


def test_errors_carry_openais_codes_and_when_to_ask_again() -> None:
    assert StorageFull("full").code == "insufficient_storage"
    overloaded = Overloaded("busy", retry_after_s=7)
    assert (overloaded.code, overloaded.retry_after_s) == ("server_is_overloaded", 7)
    plain: TuneryError = TooLarge("big", param="file")
    assert (plain.message, plain.param, plain.code) == ("big", "file", None)
